"""sdk: the files that go with a graph: those of its checkpoint, or what a pass has made of them."""

import json
from dataclasses import dataclass, field
from typing import Any

import tokenizers

from edgewise.bundle.probe import probe
from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.text.tokenizer import FILE_NAME, Tokenizer


@dataclass
class Companions:
    """Tokenizer, templates and configurations, by name. A pass that changes tokens puts others in their place."""

    checkpoint: Checkpoint
    changed: dict[str, bytes] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.checkpoint.companions)

    def read(self, name: str) -> bytes:
        return self.changed[name] if name in self.changed else self.checkpoint.companions[name].read_bytes()

    def table(self, name: str) -> dict[str, Any]:
        """A file of JSON. Raises CheckpointError where it is no table."""
        try:
            data = json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{name}: {error}") from error
        if not isinstance(data, dict):
            raise CheckpointError(f"{name}: expected a table")
        return data

    def put(self, name: str, content: str) -> None:
        """Other content for a file that is there."""
        assert name in self.checkpoint.companions
        self.changed[name] = content.encode()

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(self.changed[name]) if name in self.changed else path.stat().st_size
            for name, path in self.checkpoint.companions.items()
        }

    def tokenizer(self, *, needed_by: str) -> Tokenizer:
        """The tokenizer; that of the checkpoint is first parsed by another process, which may crash.

        Raises CheckpointError.
        """
        if FILE_NAME in self.changed:
            return Tokenizer(tokenizers.Tokenizer.from_str(self.changed[FILE_NAME].decode()))
        folder = self.checkpoint.folder
        if FILE_NAME not in self.checkpoint.companions:
            raise CheckpointError(f"{folder} has no {FILE_NAME}: {needed_by} cannot be read without it")
        if problem := probe("text", folder):
            raise CheckpointError(problem)
        return Tokenizer.load(folder)
