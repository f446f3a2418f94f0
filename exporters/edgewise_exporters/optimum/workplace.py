"""exporters, optimum: the folder that an export works in: a clean checkpoint goes in, and graphs come out."""

import json
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from edgewise.checkpoint import CONFIG, GENERATION, INDEX, WEIGHTS, Checkpoint
from edgewise.errors import CheckpointError

BYTES_OF_FLOAT = 4


class Workplace:
    """A temporary folder, removed with the last that refers to it, or `remove`.

    `checkpoint` holds what the export may read of a checkpoint, and nothing else of it: its configuration, without the
    keys that the user left out, and its safetensors. No code, no pickle, no tokenizer.
    """

    def __init__(self, source: Checkpoint) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="edgewise-optimum-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        self._refuse_full_disk(source)
        self.checkpoint, self.output = self.path / "checkpoint", self.path / "output"
        self.temporary = self.path / "temporary"
        self.log, self.request = self.path / "log", self.path / "request.json"
        for folder in (self.checkpoint, self.output, self.temporary):
            folder.mkdir()
        for name, table in ((CONFIG, source.config), (GENERATION, source.generation)):
            if table:
                (self.checkpoint / name).write_text(json.dumps(dict(table)), "utf-8")
        for name in _weights(source):
            _link((source.folder / name).resolve(), self.checkpoint / name)

    def leave(self) -> None:
        """Take its name away where open files are read without one, so that nothing is left of a process that dies."""
        if os.name == "posix":
            self.remove()

    def _refuse_full_disk(self, source: Checkpoint) -> None:
        """An export writes the weights in float32, and while it rewrites them, twice."""
        needed = 2 * BYTES_OF_FLOAT * sum(tensor.size for tensor in source.tensors.values())
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise CheckpointError(
                f"{self.path.parent} has {free:,} bytes left; an export by optimum takes up to {needed:,}: free some, "
                "or set TMPDIR to a folder with more"
            )


def _weights(source: Checkpoint) -> list[str]:
    """The files of safetensors, and the index of these; `Checkpoint.open` has checked all of them."""
    if (source.folder / WEIGHTS).exists():
        return [WEIGHTS]
    index = json.loads((source.folder / INDEX).read_bytes())
    return [INDEX, *sorted(set(index["weight_map"].values()))]


def _link(path: Path, name: Path) -> None:
    try:
        os.symlink(path, name)
    except OSError:  # Windows, without the right to
        shutil.copyfile(path, name)
