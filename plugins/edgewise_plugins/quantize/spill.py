"""plugins, quantize: quantized matrices in a temporary file: what is not to be computed twice, and not held either."""

import tempfile
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgewise.quantized import Block, BlockQuantized, Format


class Spill:
    """A temporary file of quantized matrices; it is gone when nothing refers to it any more."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the matrices in it)
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._end = 0

    def write(self, shape: tuple[int, int], form: Format, blocks: Iterable[Block], *, name: str) -> BlockQuantized:
        """The matrix of which `blocks` are the rows, from first to last; its bytes are read when they are asked for."""
        rows, columns = shape
        widths = _widths(form, columns)
        offsets = self._end + np.cumsum([0, *widths[:-1]]) * rows
        self._end += sum(widths) * rows
        row = 0
        for block in blocks:
            for part, offset, width in zip(_parts(block), offsets, widths, strict=False):
                self._write(int(offset) + row * width, part)
            row += len(block.scales)
        assert row == rows

        def read(start: int, stop: int) -> Block:
            packed, scales, zero_points = (
                self._read(int(offset) + start * width, (stop - start) * width)
                for offset, width in zip(offsets, widths, strict=True)
            )
            return Block(
                packed.reshape(stop - start, -1, form.blob),
                scales.view(np.float32).reshape(stop - start, -1),
                None if form.symmetric else zero_points.reshape(stop - start, -1),
            )

        return BlockQuantized(shape, form, read, name=name)

    def _write(self, offset: int, array: np.ndarray) -> None:
        with self._lock:
            self._file.seek(offset)
            self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _read(self, offset: int, count: int) -> np.ndarray:
        array = np.empty(count, np.uint8)
        with self._lock:
            self._file.seek(offset)
            assert self._file.readinto(array.data) == count
        return array


def _widths(form: Format, columns: int) -> list[int]:
    """Bytes of a row: of its codes, its scales and its zero points."""
    blocks = form.blocks(columns)
    return [blocks * form.blob, blocks * 4, form.zero_point_bytes(columns)]


def _parts(block: Block) -> list[np.ndarray]:
    return [part for part in (block.packed, block.scales, block.zero_points) if part is not None]
