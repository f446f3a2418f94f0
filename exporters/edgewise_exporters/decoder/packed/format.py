"""exporters, decoder, packed: what a packed format is, and a matrix in it as the canonical graph has it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgewise.options import known
from edgewise.quantized import Block, BlockQuantized, Format, pack, unpack
from edgewise.tensors import Streamed
from edgewise_exporters.decoder.config import Config
from edgewise_exporters.decoder.packed.turned import Turned

FLOATS = (ir.DataType.BFLOAT16, ir.DataType.FLOAT16, ir.DataType.FLOAT)
INTEGERS = (ir.DataType.INT32,)
WORD = 32  # bits of the integers that hold codes

Rows = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Expected:
    """A tensor that a packed module has."""

    shape: tuple[int, ...]
    dtypes: tuple[ir.DataType, ...]
    optional: bool = False


@dataclass(frozen=True)
class Stored:
    """A packed matrix `[out, in]`, by ranges of its rows.

    codes: uint8 `[rows, bytes]`, low bits first, at least as many as there are columns.
    scales: float32 `[rows, groups]`. zero_points: uint8 `[rows, groups]`, one a byte.
    groups: the group of each column where that is not in order, `[columns]`.
    """

    codes: Rows
    scales: Rows
    zero_points: Rows
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class Matrix:
    """A weight `[out, in]` of the graph; with `order`, input feature i of it is feature `order[i]` of the module."""

    tensor: Streamed
    order: np.ndarray | None = None


@dataclass(frozen=True)
class Packing(ABC):
    """A format in which checkpoints hold the weights of linear modules."""

    bits: int
    group_size: int  # columns that share a scale; -1: all of a row
    symmetric: bool = False
    turned: Mapping[str, Turned] = field(
        default_factory=lambda: {part: Turned() for part in ("qweight", "qzeros", "scales")}, compare=False, repr=False
    )

    @abstractmethod
    def expected(self, rows: int, columns: int) -> dict[str, Expected]:
        """The tensors of a module, by the last part of their names."""

    @abstractmethod
    def stored(self, tensors: Mapping[str, Streamed], rows: int, columns: int) -> Stored:
        """A matrix in its tensors."""

    def matrix(self, tensors: Mapping[str, Streamed], rows: int, columns: int) -> Matrix:
        """The weight: with its codes where groups are blocks that kernels take, in floats where they are not.

        Groups of columns that are apart become blocks by another order of the columns.
        """
        stored, form = self.stored(tensors, rows, columns), blocks_of(self, columns)
        order = None if stored.groups is None else np.argsort(stored.groups, kind="stable")
        in_order = np.arange(columns) // self.group(columns)
        if form is None or (stored.groups is not None and (stored.groups[order] != in_order).any()):
            return Matrix(in_floats(self, stored, rows, columns))
        return Matrix(in_blocks(self, stored, form, order, rows, columns), order)

    def group(self, columns: int) -> int:
        """Columns that share a scale."""
        return columns if self.group_size == -1 else self.group_size

    def groups(self, columns: int) -> int:
        return -(-columns // self.group(columns))

    def words(self, count: int) -> int:
        """Integers that hold so many codes."""
        return -(-count * self.bits // WORD)


def blocks_of(packing: Packing, columns: int) -> Format | None:
    """The format with the same codes, in blocks that kernels are made for; None where there is none.

    A larger group becomes several blocks of one scale: of a power of two that divides it, or, where a group is a
    whole row, of any.
    """
    group = packing.group(columns)
    sizes = (32, 64, 128) if packing.bits == 2 else (16, 32, 64, 128, 256)
    if group in sizes:
        return Format(packing.bits, group, packing.symmetric)
    fitting = [size for size in sizes if size <= 128 and (group % size == 0 or group >= columns >= size)]
    return Format(packing.bits, fitting[-1], packing.symmetric) if fitting else None


def in_blocks(
    packing: Packing, stored: Stored, form: Format, order: np.ndarray | None, rows: int, columns: int
) -> BlockQuantized:
    """The matrix with its codes, scales and zero points as they are stored, a range of rows at a time."""
    of_block = np.arange(form.blocks(columns)) * form.block_size // packing.group(columns)

    def quantized(start: int, stop: int) -> Block:
        zero_points = np.take(stored.zero_points(start, stop), of_block, axis=1)
        codes = stored.codes(start, stop)
        if order is not None:
            codes = pack(np.take(unpack(codes, form.bits), order, axis=1), form.bits)
        codes = _whole_blocks(codes, zero_points[:, -1:], form, columns)
        scales = np.take(stored.scales(start, stop), of_block, axis=1)
        return Block(codes, scales, None if form.symmetric else pack(zero_points, form.bits))

    return BlockQuantized((rows, columns), form, quantized)


def _whole_blocks(packed: np.ndarray, last: np.ndarray, form: Format, columns: int) -> np.ndarray:
    """Packed codes as `[rows, blocks, blob]`, the last block filled up with its zero point."""
    blocks = form.blocks(columns)
    if spare := blocks * form.block_size - columns:
        codes = unpack(packed, form.bits)[:, :columns]
        packed = pack(np.concatenate([codes, np.repeat(last, spare, axis=1)], axis=1), form.bits)
    return np.ascontiguousarray(packed[:, : blocks * form.blob]).reshape(len(packed), blocks, form.blob)


def in_floats(packing: Packing, stored: Stored, rows: int, columns: int) -> Streamed:
    """The matrix as float32, a range of rows at a time: `(code - zero_point) * scale`."""
    of_column = np.arange(columns) // packing.group(columns) if stored.groups is None else stored.groups

    def read(start: int, stop: int) -> np.ndarray:
        codes = unpack(stored.codes(start, stop), packing.bits)[:, :columns]
        weights = codes.astype(np.float32)
        weights -= stored.zero_points(start, stop)[:, of_column]
        weights *= stored.scales(start, stop)[:, of_column]
        return weights

    return Streamed((rows, columns), ir.DataType.FLOAT, read)


def read_bits(table: Config, expected: Sequence[int] = (2, 4, 8)) -> int:
    bits = table.integer("bits")
    if bits not in expected:
        raise table.error("bits", known(map(str, expected)))
    return bits


def read_group_size(table: Config) -> int:
    size = table.integer("group_size", 128, least=-1)
    if size == 0:
        raise table.error("group_size", "columns that share a scale, or -1: all of a row")
    return size
