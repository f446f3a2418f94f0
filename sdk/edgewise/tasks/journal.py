"""sdk, tasks: what is answered already, a line for each batch: an evaluation that is killed goes on after it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgewise.bench.energy import Energy
from edgewise.tasks.result import Item


@dataclass(frozen=True)
class Batch:
    """Tasks that were answered together, and what that took."""

    items: tuple[Item, ...]
    between_s: tuple[float, ...]  # one token of an answer and the next, of all answers
    seconds: float
    energy: Energy


class Journal:
    """A file of batches; what a kill left half-written is cut off."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "batches.jsonl"
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        self.batches = [_read(line) for line in whole]
        with self._path.open("ab") as file:
            file.truncate(sum(map(len, whole)))

    def add(self, batch: Batch) -> None:
        with self._path.open("ab") as file:
            file.write(json.dumps(asdict(batch)).encode() + b"\n")
        self.batches.append(batch)

    @property
    def done(self) -> set[tuple[str, str]]:
        """Tasks by id and variant."""
        return {(item.id, item.variant) for batch in self.batches for item in batch.items}

    def items(self, order: Sequence[tuple[str, str]]) -> tuple[Item, ...]:
        """The answers to these tasks, by id and variant."""
        known = {(item.id, item.variant): item for batch in self.batches for item in batch.items}
        return tuple(known[each] for each in order)


def _read(line: bytes) -> Batch:
    data = json.loads(line)
    items = tuple(Item(**item) for item in data["items"])
    return Batch(items, tuple(data["between_s"]), data["seconds"], Energy(**data["energy"]))
