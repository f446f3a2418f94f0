"""plugins, sparse: float matrices in a temporary file: what is not to be computed twice, and not held either."""

import tempfile
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgewise.tensors import Streamed


class Floats:
    """A temporary file of float32 matrices; it is gone when nothing refers to it any more."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the matrices in it)
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def write(self, shape: tuple[int, ...], blocks: Iterable[np.ndarray], *, name: str) -> Streamed:
        """The matrix of which `blocks` are the rows, from first to last; they are read when they are asked for."""
        rows_in_all, columns = shape
        with self._lock:
            start = self._file.seek(0, 2)
            for rows in blocks:
                self._file.write(np.ascontiguousarray(rows, np.float32).data)
            assert self._file.tell() == start + 4 * rows_in_all * columns

        def read(first: int, stop: int) -> np.ndarray:
            rows = np.empty((stop - first, columns), np.float32)
            with self._lock:
                self._file.seek(start + 4 * first * columns)
                assert self._file.readinto(rows.data) == rows.nbytes
            return rows

        return Streamed(shape, ir.DataType.FLOAT, read, name=name)
