"""plugins, quantize: rows of a matrix in blocks, quantized by any method that looks at one row at a time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np

from edgewise.errors import CheckpointError
from edgewise.quantized import Block, Format, join, pack
from edgewise.runtime.threads import physical_cores
from edgewise.tensors import Streamed

CHUNK = 1 << 16  # weights at a time: 256 KiB of float32 and its result stay in a core's own cache


class Coded(NamedTuple):
    """Weights in blocks as codes: `(codes - zero_points) * scales`.

    codes: uint8 `[rows, blocks, block_size]`; scales and zero_points: float32 `[rows, blocks]`, zero points whole.
    """

    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray

    def weights(self) -> np.ndarray:
        """float32 `[rows, blocks, block_size]`."""
        steps = self.codes.astype(np.float32)
        steps -= self.zero_points[..., None]
        steps *= self.scales[..., None]
        return steps

    def stored(self, form: Format) -> Block:
        zeros = None if form.symmetric else pack(self.zero_points.astype(np.uint8), form.bits)
        return Block(pack(self.codes, form.bits), self.scales, zeros)


Part = TypeVar("Part")
Kernel = Callable[[np.ndarray, Format], Coded]  # of float32 `[rows, blocks, block_size]`


def quantize_rows(kernel: Kernel, matrix: Streamed, form: Format, start: int, stop: int) -> Block:
    """Rows start to stop, the same whatever the rows around them. Raises CheckpointError for NaN and infinity."""
    reading = Lock()

    def quantized(first: int, last: int) -> Block:
        with reading:  # a view may keep what it has read
            rows = in_blocks(matrix.read(first, last), form.block_size)
        return checked(kernel, rows, form, matrix, first).stored(form)

    return join(_in_pieces(quantized, start, stop, matrix.dims[1]))


def quantize_all(kernel: Kernel, blocks: np.ndarray, form: Format, matrix: Streamed, start: int) -> Coded:
    """Rows that are at hand already, `[rows, blocks, block_size]`: those of a matrix from `start` on."""

    def quantized(first: int, last: int) -> Coded:
        return checked(kernel, blocks[first:last], form, matrix, start + first)

    parts = _in_pieces(quantized, 0, len(blocks), blocks.shape[1] * blocks.shape[2])
    return Coded(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _in_pieces(work: Callable[[int, int], Part], start: int, stop: int, columns: int) -> list[Part]:
    """What some rows at a time become, in order; on as many threads as there are cores."""
    step = max(1, CHUNK // columns)
    pieces = [(first, min(first + step, stop)) for first in range(start, stop, step)]
    threads = min(len(pieces), physical_cores())
    if threads < 2:
        return [work(first, last) for first, last in pieces]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, *zip(*pieces, strict=True)))


def checked(kernel: Kernel, blocks: np.ndarray, form: Format, matrix: Streamed, start: int) -> Coded:
    """What a method makes of rows. Raises CheckpointError, which names the first whose scales are no numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        coded = kernel(blocks, form)
    finite = np.isfinite(coded.scales).all(axis=1)
    if not finite.all():
        row = start + int(finite.argmin())
        raise CheckpointError(f"weight '{matrix.name}', row {row}: not a number, infinite, or too large for float32")
    return coded


def in_blocks(rows: np.ndarray, block_size: int) -> np.ndarray:
    """Rows as float32 `[rows, blocks, block_size]`, the last block filled up with zeros."""
    rows = rows.astype(np.float32, copy=False)
    if spare := -rows.shape[1] % block_size:
        rows = np.pad(rows, ((0, 0), (0, spare)))
    return rows.reshape(len(rows), -1, block_size)
