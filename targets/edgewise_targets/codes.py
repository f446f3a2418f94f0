"""targets: a quantized matrix as the constants that ONNX Runtime's operators read."""

import onnx_ir as ir

from edgewise.quantized import BlockQuantized
from edgewise.tensors import Stacked, reshape
from edgewise_targets.step import initializer


def product_constants(graph: ir.Graph, matrix: BlockQuantized, name: str) -> list[ir.Value | None]:
    """Codes `[rows, blocks, blob]`, scales and zero points for MatMulNBits."""
    return [initializer(graph, matrix.packed, f"{name}.packed"), *_sides(graph, matrix, name)]


def table_constants(graph: ir.Graph, matrix: BlockQuantized, name: str) -> list[ir.Value | None]:
    """Codes `[rows, bytes]`, scales and zero points for GatherBlockQuantized.

    A tied lm_head reads the same codes in three dimensions: another constant on the same bytes, so that they are
    stored once, and the table needs no copy of its own beside the one that MatMulNBits rearranges.
    """
    rows, blocks, blob = matrix.packed.dims
    flat = reshape(matrix.packed, (rows, blocks * blob))
    return [initializer(graph, flat, f"{name}.table"), *_sides(graph, matrix, name)]


def _sides(graph: ir.Graph, matrix: BlockQuantized, name: str) -> list[ir.Value | None]:
    scales = initializer(graph, matrix.scales, f"{name}.scales")
    zeros = matrix.zero_points
    return [scales, None if zeros is None else initializer(graph, zeros, f"{name}.zero_points")]


def stacked_constants(graph: ir.Graph, matrix: BlockQuantized, count: int, name: str) -> list[ir.Value | None]:
    """Codes `[count, rows, bytes]`, scales and zero points for QMoE, of `count` matrices one below the other."""
    rows, blocks, blob = matrix.packed.dims
    flat = reshape(matrix.packed, (rows, blocks * blob))
    parts = {"packed": flat, "scales": matrix.scales, "zero_points": matrix.zero_points}
    return [
        None if part is None else initializer(graph, Stacked(part, rows // count), f"{name}.{what}")
        for what, part in parts.items()
    ]
