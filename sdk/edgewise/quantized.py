"""sdk: a block-quantized matrix: a float tensor to every pass, and packed codes to a lowering that asks.

Quantization changes tensors, not the graph: the initializer stays a float matrix whose values are the dequantized
ones, so the canonical graph keeps running anywhere and is its own fake-quantized reference. A lowering that has an
operator for it takes `packed`, `scales` and `zero_points` instead (ONNX Runtime's MatMulNBits layout); one that has
none is free to take the floats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgewise.tensors import Streamed


@dataclass(frozen=True)
class Format:
    """How a matrix is stored: bits of a code, columns that share a scale, zero points or none."""

    bits: int
    block_size: int
    symmetric: bool

    def __str__(self) -> str:
        return f"int{self.bits}, block {self.block_size}, {'symmetric' if self.symmetric else 'asymmetric'}"

    @property
    def top(self) -> int:
        """The highest code; the lowest is 0."""
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero point of every block of a symmetric format."""
        return 1 << (self.bits - 1)

    @property
    def blob(self) -> int:
        """Bytes of the codes of one block."""
        return self.block_size * self.bits // 8

    def blocks(self, columns: int) -> int:
        """Blocks of a row; the last one may reach beyond the matrix."""
        return -(-columns // self.block_size)

    def zero_point_bytes(self, columns: int) -> int:
        """Bytes of the zero points of one row, which are packed row by row; 0 in a symmetric format."""
        return 0 if self.symmetric else -(-self.blocks(columns) * self.bits // 8)

    def stored_bytes(self, rows: int, columns: int) -> int:
        """Bytes on disk: codes, float32 scales, zero points."""
        return rows * (self.blocks(columns) * (self.blob + 4) + self.zero_point_bytes(columns))


@dataclass(frozen=True)
class Block:
    """Some rows of a quantized matrix as they are stored; a weight is `(code - zero_point) * scale`.

    packed: uint8 `[rows, blocks, blob]`, low bits first; columns beyond the matrix hold the zero point.
    scales: float32 `[rows, blocks]`.
    zero_points: uint8 `[rows, zero_point_bytes]`, packed row by row; None in a symmetric format.
    """

    packed: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes packed along the last axis, low bits first; that axis is padded to whole bytes with zeros."""
    if spare := -codes.shape[-1] % (8 // bits):
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], spare), np.uint8)], axis=-1)
    while bits < 8:
        pairs = codes.view("<u2")  # two neighbours: the second one slides down to the first
        codes = (pairs | pairs >> np.uint16(8 - bits)).astype(np.uint8)
        bits *= 2
    return codes


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """The codes that `pack` packed, and its padding."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = packed[..., None] >> shifts & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)


def join(blocks: Sequence[Block]) -> Block:
    """Rows of one format, one below the other."""
    if len(blocks) == 1:
        return blocks[0]
    zero_points = [block.zero_points for block in blocks if block.zero_points is not None]
    return Block(
        np.concatenate([block.packed for block in blocks]),
        np.concatenate([block.scales for block in blocks]),
        np.concatenate(zero_points) if zero_points else None,
    )


def dequantize(block: Block, form: Format, columns: int) -> np.ndarray:
    """The float32 rows `[rows, columns]` of a block."""
    rows, blocks = block.scales.shape
    weights = unpack(block.packed, form.bits).astype(np.float32)
    if block.zero_points is None:
        weights -= np.float32(form.middle)
    else:
        weights -= unpack(block.zero_points, form.bits)[:, :blocks, None]
    weights *= block.scales[..., None]
    return weights.reshape(rows, -1)[:, :columns]


class BlockQuantized(Streamed):
    """A matrix `[out, in]` in blocks along its rows; `quantized(start, stop)` gives some of them as they are stored.

    Nothing quantized is held. Whoever writes it reads `packed`, then `scales`, then `zero_points`, each from the first
    row to the last: the two small ones are kept from the walk over the codes until they have been read, so that a row
    is quantized once. Any other order gives the same bytes, and computes rows again.
    """

    def __init__(
        self,
        shape: Sequence[int],
        form: Format,
        quantized: Callable[[int, int], Block],
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(shape, ir.DataType.FLOAT, self._floats, name=name)
        self.form = form
        self.quantized = quantized
        rows, columns = self.dims
        blocks = form.blocks(columns)
        self.packed = Streamed((rows, blocks, form.blob), ir.DataType.UINT8, self._packed)
        self.scales = Streamed((rows, blocks), ir.DataType.FLOAT, self._scales)
        self.zero_points: Streamed | None = None
        if not form.symmetric:
            packed_width = form.zero_point_bytes(columns)
            self.zero_points = Streamed((rows, packed_width), ir.DataType.UINT8, self._zero_points)
        self._walk: list[Block] = []

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk, in this format."""
        return self.form.stored_bytes(*self.dims)

    def _floats(self, start: int, stop: int) -> np.ndarray:
        return dequantize(self.quantized(start, stop), self.form, self.dims[1])

    def _packed(self, start: int, stop: int) -> np.ndarray:
        block = self.quantized(start, stop)
        if start == 0:
            self._walk.clear()
        if start == self._walked():
            no_codes = np.empty((stop - start, 0), np.uint8)
            self._walk.append(Block(no_codes, block.scales, block.zero_points))
        return block.packed

    def _scales(self, start: int, stop: int) -> np.ndarray:
        return self._sides(start, stop, last=self.zero_points is None).scales

    def _zero_points(self, start: int, stop: int) -> np.ndarray:
        zero_points = self._sides(start, stop, last=True).zero_points
        assert zero_points is not None
        return zero_points

    def _sides(self, start: int, stop: int, *, last: bool) -> Block:
        """Scales and zero points; after the last row of the last of them the walk is let go."""
        if stop > self._walked():
            return self.quantized(start, stop)
        self._walk[:] = [join(self._walk)]
        walk = self._walk[0]
        if last and stop == self.dims[0]:
            self._walk.clear()
        zero_points = None if walk.zero_points is None else walk.zero_points[start:stop]
        return Block(walk.packed[start:stop], walk.scales[start:stop], zero_points)

    def _walked(self) -> int:
        """Rows whose scales are at hand, from the first one on."""
        return sum(len(block.scales) for block in self._walk)


def stack(parts: Sequence[BlockQuantized], *, name: str | None = None) -> BlockQuantized:
    """Matrices of one format one below the other: packed projections. Each row stays as it was quantized."""
    form, columns = parts[0].form, parts[0].dims[1]
    assert all(part.form == form and part.dims[1] == columns for part in parts)
    ends = np.cumsum([part.dims[0] for part in parts]).tolist()

    def quantized(start: int, stop: int) -> Block:
        pieces = []
        for part, end in zip(parts, ends, strict=True):
            low = end - part.dims[0]
            a, b = max(start, low), min(stop, end)
            if a < b:
                pieces.append(part.quantized(a - low, b - low))
        return join(pieces)

    return BlockQuantized((ends[-1], columns), form, quantized, name=name)


def cut(matrix: BlockQuantized, start: int, stop: int) -> BlockQuantized:
    """Rows start to stop of a matrix: one of several projections that are stored as one. They stay as they are."""
    shape = (stop - start, matrix.dims[1])
    return BlockQuantized(shape, matrix.form, lambda a, b: matrix.quantized(start + a, start + b), name=matrix.name)


def split(matrix: BlockQuantized, block_size: int) -> BlockQuantized:
    """The same weights in smaller blocks: each has the scale and the zero point of the one that it is cut from."""
    form, columns = replace(matrix.form, block_size=block_size), matrix.dims[1]
    parts, blocks = matrix.form.block_size // block_size, form.blocks(columns)

    def quantized(start: int, stop: int) -> Block:
        whole = matrix.quantized(start, stop)
        scales = whole.scales.repeat(parts, axis=1)[:, :blocks]
        packed = whole.packed.reshape(stop - start, -1, form.blob)[:, :blocks]
        if whole.zero_points is None:
            return Block(packed, scales, None)
        zero_points = unpack(whole.zero_points, form.bits)[:, : whole.scales.shape[1]]
        return Block(packed, scales, pack(zero_points.repeat(parts, axis=1)[:, :blocks], form.bits))

    return BlockQuantized(matrix.dims, form, quantized, name=matrix.name)
