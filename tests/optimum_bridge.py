"""tests: a Python with optimum, made of the one that runs the tests, whose torch it shares; and models made by it."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewise.checkpoint import Checkpoint
from edgewise.folders import OpenFolder
from edgewise_exporters.optimum.environment import VARIABLE
from edgewise_exporters.optimum.tasks import CLASSIFY, EMBED, GENERATE, TAG, TRANSLATE

__all__ = ["EXPORTED", "VARIABLE", "environment", "models", "reconfigure"]

PACKAGES = ("optimum-onnx==0.1.0", "transformers<4.58")
INSTALL_S = 300
EXPORTED = {
    "albert": TAG,
    "distilbert": CLASSIFY,
    "gpt2": GENERATE,
    "gpt2_sentence": EMBED,
    "opt": GENERATE,
    "sentence": EMBED,
    "t5": TRANSLATE,
    "tokens": TAG,
}


def environment(folder: Path) -> Path:
    """Its Python. Only what clashes with the packages of this one is installed: some 15 seconds."""
    home = folder / "optimum-python"
    once(folder, home, lambda: _install(home))
    return home / "bin" / "python"


def models(python: Path, folder: Path) -> Path:
    """A folder with the checkpoints of optimum_models.py, references and exports."""
    home = folder / "optimum-models"
    script = Path(__file__).with_name("optimum_models.py")

    def make() -> None:
        home.mkdir()
        exports = [f"{name}={task}" for name, task in EXPORTED.items()]
        subprocess.run([python, "-I", script, home, *exports], check=True, capture_output=True)

    once(folder, home, make)
    return home


def once(folder: Path, made: Path, make: Callable[[], None]) -> None:
    """Make something that the first process of the tests makes for all of them."""
    with OpenFolder(folder) as held:
        held.lock(wait=True)
        ready = made.with_name(f"{made.name}.ready")
        if not ready.exists():
            make()
            ready.touch()


def _install(home: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "parent.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", *PACKAGES]
    try:
        subprocess.run(pip, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    except (OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"pip does not install optimum-onnx here: {getattr(error, 'stderr', None) or error}")


def reconfigure(checkpoint: Path, change: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint with other values in its config.json; None takes a key away."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return Checkpoint.open(checkpoint)
