"""exporters, decoder, packed: a packed matrix as the graph has it: in blocks with its own codes, or in floats."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.quantized import Block, BlockQuantized, Format, pack, unpack
from edgewise.tensors import Streamed
from edgewise_exporters.decoder.packed.format import Packing, Stored


@dataclass(frozen=True)
class Matrix:
    """A weight `[out, in]` of the graph; with `order`, input feature i of it is feature `order[i]` of the module."""

    tensor: Streamed
    order: np.ndarray | None = None


def read_matrix(packing: Packing, tensors: Mapping[str, Streamed], rows: int, columns: int) -> Matrix:
    """The weight of a module: with its codes where groups are blocks that kernels take, in floats where they are not.

    Groups of columns that are apart become blocks by another order of the columns.
    """
    stored, form = packing.stored(tensors, rows, columns), blocks_of(packing, columns)
    if form is None:
        return Matrix(in_floats(packing, stored, rows, columns))
    if stored.groups is None:
        return Matrix(in_blocks(packing, stored, form, None, rows, columns))
    order = np.argsort(stored.groups, kind="stable")
    if (stored.groups[order] != np.arange(columns) // packing.group(columns)).any():
        return Matrix(in_floats(packing, stored, rows, columns))
    return Matrix(in_blocks(packing, stored, form, order, rows, columns), order)


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
