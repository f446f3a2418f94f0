"""sdk: a block-quantized matrix: a float tensor to every pass, and packed codes to a lowering that asks.

Quantization changes tensors, not the graph: the initializer stays a float matrix whose values are the dequantized
ones, so the canonical graph keeps running anywhere and is its own fake-quantized reference. A lowering that has an
operator for it takes `packed`, `scales` and `zero_points` instead (ONNX Runtime's MatMulNBits layout); one that has
none is free to take the floats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.tensors import Streamed


@dataclass(frozen=True)
class Block:
    """Some rows of a quantized matrix; a weight is `(code - zero_point) * scale`.

    codes: uint8 `[rows, blocks, block_size]`, columns beyond the matrix hold the zero point.
    scales: float32 `[rows, blocks]`.
    zero_points: uint8 `[rows, blocks]`; None: `2 ** (bits - 1)` everywhere (a symmetric format).
    """

    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None


@dataclass(frozen=True)
class Format:
    """How a matrix is stored: bits of a code, columns that share a scale, zero points or none."""

    bits: int
    block_size: int
    symmetric: bool

    def blocks(self, columns: int) -> int:
        return -(-columns // self.block_size)

    def stored_bytes(self, rows: int, columns: int) -> int:
        """Bytes on disk: codes, float32 scales, zero points packed per row."""
        blocks = self.blocks(columns)
        zero_points = 0 if self.symmetric else -(-blocks * self.bits // 8)
        return rows * (blocks * (self.block_size * self.bits // 8 + 4) + zero_points)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes packed along the last axis, low bits first; that axis is padded to whole bytes with zeros."""
    per_byte = 8 // bits
    if per_byte == 1:
        return codes
    if spare := -codes.shape[-1] % per_byte:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], spare), np.uint8)], axis=-1)
    packed = codes[..., 0::per_byte].copy()
    for i in range(1, per_byte):
        packed |= codes[..., i::per_byte] << np.uint8(bits * i)
    return packed


def dequantize(block: Block, bits: int, columns: int) -> np.ndarray:
    """The float32 rows `[rows, columns]` of a block."""
    zero_points = np.float32(1 << (bits - 1)) if block.zero_points is None else block.zero_points[..., None]
    weights = (block.codes.astype(np.float32) - zero_points) * block.scales[..., None]
    return weights.reshape(len(weights), -1)[:, :columns]


class BlockQuantized(Streamed):
    """A matrix `[out, in]` in blocks along its rows; `quantize(start, stop)` gives some rows of it.

    Whoever writes it reads `packed`, then `scales`, then `zero_points`: the two small ones are kept from the one walk
    over the codes, and let go once they have been read to their end.
    """

    def __init__(
        self,
        shape: Sequence[int],
        form: Format,
        quantize: Callable[[int, int], Block],
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(shape, ir.DataType.FLOAT, self._dequantized, name=name)
        self.form = form
        self.quantized = quantize
        self._walk: list[tuple[np.ndarray, np.ndarray | None]] = []
        rows, columns = self.dims
        blocks = form.blocks(columns)
        blob = form.block_size * form.bits // 8
        self.packed = Streamed((rows, blocks, blob), ir.DataType.UINT8, self._packed)
        self.scales = Streamed((rows, blocks), ir.DataType.FLOAT, self._scales)
        self.zero_points = None
        if not form.symmetric:
            width = -(-blocks * form.bits // 8)
            self.zero_points = Streamed((rows, width), ir.DataType.UINT8, self._zero_points)

    def _dequantized(self, start: int, stop: int) -> np.ndarray:
        return dequantize(self.quantized(start, stop), self.form.bits, self.dims[1])

    def _packed(self, start: int, stop: int) -> np.ndarray:
        block = self.quantized(start, stop)
        if start == 0:
            self._walk.clear()
        if start == self._walked():
            zero_points = None if block.zero_points is None else pack(block.zero_points, self.form.bits)
            self._walk.append((block.scales, zero_points))
        return pack(block.codes, self.form.bits)

    def _scales(self, start: int, stop: int) -> np.ndarray:
        scales = self._sides(start, stop)[0]
        if stop == self.dims[0] and self.form.symmetric:
            self._walk.clear()
        return scales

    def _zero_points(self, start: int, stop: int) -> np.ndarray:
        zero_points = self._sides(start, stop)[1]
        assert zero_points is not None
        if stop == self.dims[0]:
            self._walk.clear()
        return zero_points

    def _sides(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None]:
        if stop > self._walked():
            block = self.quantized(start, stop)
            zero_points = None if block.zero_points is None else pack(block.zero_points, self.form.bits)
            return block.scales, zero_points
        if len(self._walk) > 1:
            scales = np.concatenate([scales for scales, _ in self._walk])
            zeros = [zeros for _, zeros in self._walk if zeros is not None]
            self._walk = [(scales, np.concatenate(zeros) if zeros else None)]
        scales, zero_points = self._walk[0]
        return scales[start:stop], None if zero_points is None else zero_points[start:stop]

    def _walked(self) -> int:
        """Rows whose scales are at hand, from the first one on."""
        return sum(len(scales) for scales, _ in self._walk)


def stack(parts: Sequence[BlockQuantized], *, name: str | None = None) -> BlockQuantized:
    """Matrices of one format one below the other: packed projections. Each row stays as it was quantized."""
    form, columns = parts[0].form, parts[0].dims[1]
    assert all(part.form == form and part.dims[1] == columns for part in parts)
    ends = np.cumsum([part.dims[0] for part in parts]).tolist()

    def quantize(start: int, stop: int) -> Block:
        pieces = []
        for part, end in zip(parts, ends, strict=True):
            low = end - part.dims[0]
            a, b = max(start, low), min(stop, end)
            if a < b:
                pieces.append(part.quantized(a - low, b - low))
        if len(pieces) == 1:
            return pieces[0]
        zeros = [piece.zero_points for piece in pieces if piece.zero_points is not None]
        return Block(
            np.concatenate([piece.codes for piece in pieces]),
            np.concatenate([piece.scales for piece in pieces]),
            np.concatenate(zeros) if zeros else None,
        )

    return BlockQuantized((ends[-1], columns), form, quantize, name=name)
