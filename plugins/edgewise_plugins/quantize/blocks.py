"""plugins, quantize: rows of a matrix in blocks, quantized by any method that looks at one row at a time."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgewise.errors import CheckpointError
from edgewise.quantized import Block, Format, join, pack
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


Kernel = Callable[[np.ndarray, Format], Coded]  # of float32 `[rows, blocks, block_size]`


def quantize_rows(kernel: Kernel, matrix: Streamed, form: Format, start: int, stop: int) -> Block:
    """Rows start to stop, the same whatever the rows around them. Raises CheckpointError for NaN and infinity."""
    step = max(1, CHUNK // matrix.dims[1])
    parts = []
    for first in range(start, stop, step):
        rows = in_blocks(matrix.read(first, min(first + step, stop)), form.block_size)
        parts.append(checked(kernel, rows, form, matrix, first).stored(form))
    return join(parts)


def quantize_all(kernel: Kernel, blocks: np.ndarray, form: Format, matrix: Streamed, start: int) -> Coded:
    """Rows that are at hand already, `[rows, blocks, block_size]`: those of a matrix from `start` on."""
    step = max(1, CHUNK // (blocks.shape[1] * blocks.shape[2]))
    parts = [checked(kernel, blocks[a : a + step], form, matrix, start + a) for a in range(0, len(blocks), step)]
    return Coded(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


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
