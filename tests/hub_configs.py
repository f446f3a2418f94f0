"""tests: configurations in the spelling of the checkpoints that are published on the Hugging Face hub."""

import json
from pathlib import Path
from typing import Any

# One that extends its context says so as its card tells one to; long lists of factors are as long, and made up.
FILES = sorted(Path(__file__).parent.joinpath("fixtures", "hub").glob("*.json"))
HUB: dict[str, dict[str, Any]] = {
    path.stem.replace("--", "/", 1): json.loads(path.read_text("utf-8")) for path in FILES
}
