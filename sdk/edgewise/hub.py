"""sdk: models on the Hugging Face hub, downloaded into the cache that all Hugging Face libraries share."""

import re
from collections.abc import Iterable
from pathlib import Path

from edgewise.errors import CheckpointError
from edgewise.extras import extras

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_id(text: str) -> bool:
    """Whether a text has the form org/name."""
    return ID.fullmatch(text) is not None


def download(repository: str, files: Iterable[str]) -> Path:
    """The folder that holds those files of the model, and no others. Raises CheckpointError in one line."""
    with extras():
        from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(repository, allow_patterns=list(files)))
    except Exception as error:  # its network stack has no common ancestor for what can go wrong
        reason = next(iter(str(error).removeprefix("Got: ").splitlines()), "") or type(error).__name__
        raise CheckpointError(f"there is no folder {repository}, and the hub did not give it: {reason}") from error
