"""sdk, quality: the sequences that are measured already, in a file: an evaluation that is killed goes on after them."""

from dataclasses import fields
from pathlib import Path
from typing import Generic, TypeVar

import blake3
import numpy as np

from edgewise.quality.divergence import Likelihoods

FILE = "sequences"
DIGEST_BYTES = 32

Found = TypeVar("Found", bound=Likelihoods)


class Finished(Generic[Found]):
    """A file in `folder` with what was found on one sequence after the other, `positions` numbers of each kind.

    Each record has its hash behind it: what a kill left half-written is cut off.
    """

    def __init__(self, folder: Path, kind: type[Found], positions: int) -> None:
        self.kind = kind
        self.names = [field.name for field in fields(kind)]
        self.path, self.positions = folder / FILE, positions
        self.found = self._read()

    def add(self, found: Found) -> None:
        """One sequence more."""
        content = np.stack([getattr(found, name) for name in self.names]).tobytes()
        with self.path.open("ab") as file:
            file.write(content + blake3.blake3(content).digest())
        self.found.append(found)

    def _read(self) -> list[Found]:
        size = 8 * len(self.names) * self.positions
        found: list[Found] = []
        with self.path.open("a+b") as file:
            file.seek(0)
            while record := file.read(size + DIGEST_BYTES):
                content = record[:size]
                if blake3.blake3(content).digest() != record[size:]:
                    break
                found.append(self.kind(*np.frombuffer(content).reshape(len(self.names), self.positions)))
            file.truncate(len(found) * (size + DIGEST_BYTES))
        return found
