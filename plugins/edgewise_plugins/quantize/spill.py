"""plugins, quantize: quantized matrices in a file: what is not to be computed twice, and not held either."""

import os
import tempfile
import threading
import weakref
from collections.abc import Iterable, Mapping
from io import BufferedRandom
from pathlib import Path

import numpy as np

from edgewise.quantized import Block, BlockQuantized, Format


class Spill:
    """Quantized matrices in a file, which is closed when nothing refers to them any more.

    places: where in the file matrices go, by name; those that are not among them come one after the other.
    """

    def __init__(self, file: BufferedRandom, places: Mapping[str, int] | None = None) -> None:
        self._file, self._places = file, places or {}
        weakref.finalize(self, file.close)
        self._lock = threading.Lock()
        self._end = 0

    def write(self, shape: tuple[int, int], form: Format, blocks: Iterable[Block], *, name: str) -> BlockQuantized:
        """The matrix of which `blocks` are the rows, from first to last; its bytes are read when they are asked for."""
        place = self._places.get(name)
        if place is None:
            place, self._end = self._end, self._end + form.stored_bytes(*shape)
        offsets, widths = _offsets(shape, form, place), _widths(form, shape[1])
        row = 0
        for block in blocks:
            for part, offset, width in zip(_parts(block), offsets, widths, strict=False):
                self._write(offset + row * width, part)
            row += len(block.scales)
        assert row == shape[0]
        return self.at(place, shape, form, name=name)

    def at(self, place: int, shape: tuple[int, int], form: Format, *, name: str) -> BlockQuantized:
        """The matrix that was written at a place."""
        offsets, widths = _offsets(shape, form, place), _widths(form, shape[1])

        def read(start: int, stop: int) -> Block:
            packed, scales, zero_points = (
                self._read(offset + start * width, (stop - start) * width)
                for offset, width in zip(offsets, widths, strict=True)
            )
            return Block(
                packed.reshape(stop - start, -1, form.blob),
                scales.view(np.float32).reshape(stop - start, -1),
                None if form.symmetric else zero_points.reshape(stop - start, -1),
            )

        return BlockQuantized(shape, form, read, name=name)

    def flush(self) -> None:
        """Have what was written in the file, for who opens it anew."""
        with self._lock:
            self._file.flush()

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


def temporary(folder: Path | None = None) -> Spill:
    """In a file without a name: nobody has to remove it."""
    return Spill(tempfile.TemporaryFile(dir=folder))


def kept(path: Path, places: Mapping[str, int]) -> Spill:
    """In a file that may be there already. It can be removed at any time: its matrices stay until they are let go.

    Windows, which does not remove what is open, removes it then.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_TEMPORARY", 0)
    return Spill(os.fdopen(os.open(path, flags), "r+b"), places)


def _offsets(shape: tuple[int, int], form: Format, place: int) -> list[int]:
    """Where codes, scales and zero points of a matrix begin."""
    rows, columns = shape
    packed, scales, _ = _widths(form, columns)
    return [place, place + packed * rows, place + (packed + scales) * rows]


def _widths(form: Format, columns: int) -> list[int]:
    """Bytes of a row: of its codes, its scales and its zero points."""
    blocks = form.blocks(columns)
    return [blocks * form.blob, blocks * 4, form.zero_point_bytes(columns)]


def _parts(block: Block) -> list[np.ndarray]:
    return [part for part in (block.packed, block.scales, block.zero_points) if part is not None]
