"""sdk, calibration: the residual stream of all sequences between two layers, on disk."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import blake3
import numpy as np


class Hidden:
    """A file of float32 `[sequences, length, hidden]`, written and read a few sequences at a time.

    Read, not mapped: mapped pages would count as memory of the process.
    """

    def __init__(self, path: Path, shape: Sequence[int]) -> None:
        self.path, self.shape = path, tuple(shape)
        self.digest = ""  # BLAKE3 of the file, once it is written

    def read(self, start: int, stop: int) -> np.ndarray:
        """Sequences start to stop, as a new array."""
        rows = np.empty((stop - start, *self.shape[1:]), np.float32)
        with self.path.open("rb") as file:
            file.seek(start * rows[0].nbytes)
            count = file.readinto(rows.reshape(-1).view(np.uint8).data)
        assert count == rows.nbytes
        return rows

    def write(self, batches: Iterable[np.ndarray]) -> None:
        """The whole file, in order; it is there whole or not at all."""
        partial = self.path.with_name(self.path.name + ".partial")
        digest = blake3.blake3()
        with partial.open("wb") as file:
            for rows in batches:
                content = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
                digest.update(content)
                file.write(content)
        partial.rename(self.path)
        self.digest = digest.hexdigest()

    def remove(self) -> None:
        self.path.unlink()
