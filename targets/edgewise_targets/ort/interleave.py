"""targets, ort: the matrices of all experts of a layer, one below the other, as fused operators read them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.graph import Linear
from edgewise.integer import Int8Rows
from edgewise.quantized import Block, BlockQuantized, split, stack
from edgewise.tensors import Streamed, concatenate

SMALLEST = 16  # block that the kernels take


@dataclass(frozen=True)
class FloatStacks:
    """Gate and up `[experts * 2 * inner, hidden]`, their rows in turns; down `[experts * hidden, inner]`."""

    wide: Streamed
    down: Streamed


@dataclass(frozen=True)
class QuantizedStacks:
    """The same in one format, whose block size divides their rows."""

    wide: BlockQuantized
    down: BlockQuantized


def stacks(
    gate: Sequence[Linear], up: Sequence[Linear], down: Sequence[Linear]
) -> FloatStacks | QuantizedStacks | None:
    """None where the matrices are not all floats, and not all in formats that one operator takes."""
    groups = [[linear.matrix for linear in group] for group in (gate, up, down)]
    quantized = [[matrix for matrix in group if isinstance(matrix, BlockQuantized)] for group in groups]
    if not any(quantized):
        return FloatStacks(concatenate(list(map(interleave, *groups[:2]))), concatenate(groups[2]))
    block = _common_block(groups, quantized)
    if block is None:
        return None
    gates, ups, downs = ([split(matrix, block) for matrix in group] for group in quantized)
    found = QuantizedStacks(stack(list(map(interleave_quantized, gates, ups))), stack(downs))
    _store_once(found.wide, [*quantized[0], *quantized[1]])
    _store_once(found.down, quantized[2])
    return found


def _store_once(stacked: BlockQuantized, parts: Sequence[BlockQuantized]) -> None:
    """Let equal parts give equal bytes, so that two graphs of a bundle share them."""
    for name in ("packed", "scales", "zero_points"):
        own = getattr(stacked, name)
        if own is not None:
            own.storage = (name, stacked.form, *(getattr(part, name).storage for part in parts))


def _common_block(groups: Sequence[Sequence[Streamed]], quantized: Sequence[Sequence[BlockQuantized]]) -> int | None:
    """The largest block that those of all matrices can be cut into, and that divides their rows."""
    matrices = [matrix for group in quantized for matrix in group]
    if len(matrices) < sum(map(len, groups)) or any(isinstance(matrix.form, Int8Rows) for matrix in matrices):
        return None
    if len({(matrix.form.bits, matrix.form.symmetric) for matrix in matrices}) > 1:
        return None
    block = math.gcd(*(size for matrix in matrices for size in (matrix.form.block_size, matrix.dims[1])))
    return block if block >= SMALLEST else None


def interleave(gate: Streamed, up: Streamed) -> Streamed:
    """The rows of two matrices, or the numbers of two vectors, in turns."""
    rows, *columns = gate.dims

    def read(start: int, stop: int) -> np.ndarray:
        first, last = start // 2, -(-stop // 2)
        return _in_turns(gate.read(first, last), up.read(first, last))[start - 2 * first : stop - 2 * first]

    return Streamed((2 * rows, *columns), gate.dtype, read, storage=("interleave", gate.storage, up.storage))


def interleave_quantized(gate: BlockQuantized, up: BlockQuantized) -> BlockQuantized:
    """The rows of two matrices of one format in turns; each stays as it was quantized."""
    rows, columns = gate.dims

    def quantized(start: int, stop: int) -> Block:
        first, last = start // 2, -(-stop // 2)
        own, some = slice(start - 2 * first, stop - 2 * first), (gate.quantized(first, last), up.quantized(first, last))
        zero_points = [block.zero_points for block in some if block.zero_points is not None]
        return Block(
            _in_turns(*(block.packed for block in some))[own],
            _in_turns(*(block.scales for block in some))[own],
            _in_turns(*zero_points)[own] if zero_points else None,
        )

    return BlockQuantized((2 * rows, columns), gate.form, quantized)


def _in_turns(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second], axis=1).reshape(-1, *first.shape[1:])
