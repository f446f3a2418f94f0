"""targets, ort: formats that ONNX Runtime accepts and then computes a hundred times slower, refused by name.

Measured on onnxruntime 1.31.1, x86-64: what has no kernel of its own is dequantized anew for every token.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise_targets.step import Step

BLOCKS = {2: (32, 64, 128), 4: (16, 32, 64, 128, 256), 8: (16, 32, 64, 128, 256)}


@dataclass(frozen=True)
class RefuseSlowFormats(Step):
    """Raises LoweringError for a quantized matrix in a format that falls off the fast path; changes nothing."""

    name: ClassVar[str] = "ort-refuse-slow-formats"

    def rewrite(self, model: ir.Model) -> bool:
        refuse_slow_formats(model)
        return False


def refuse_slow_formats(model: ir.Model) -> None:
    """Raises LoweringError, which names the weight, what is wrong with its format, and what to choose."""
    checks: dict[str, Callable[[ir.Node], str | None]] = {
        "MatMulNBits": _slow_product,
        "GatherBlockQuantized": _no_rows,
    }
    for node in model.graph:
        check = checks.get(node.op_type)
        if check and (problem := check(node)):
            raise LoweringError(f"'{node.name}': {problem}")


def _slow_product(node: ir.Node) -> str | None:
    bits, block = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 0)
    if bits not in BLOCKS:
        return f"ONNX Runtime has no product with {bits}-bit weights; choose bits {_listed(BLOCKS)}"
    if block not in BLOCKS[bits]:
        sizes = _listed(BLOCKS[bits])
        return f"{bits}-bit weights in blocks of {block} fall off the fast path; choose block_size {sizes}"
    if bits != 4 and node.attributes.get_int("accuracy_level", 0) != 4:
        return f"{bits}-bit weights are 100 times slower with float activations; choose accuracy_level 4, or bits 4"
    zero_points = node.inputs[3] if len(node.inputs) > 3 else None
    if zero_points is not None and zero_points.dtype != ir.DataType.UINT8:
        return "float zero points are 100 times slower; choose whole ones (packed uint8), or a symmetric format"
    return None


def _no_rows(node: ir.Node) -> str | None:
    bits, block = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 0)
    if bits not in BLOCKS:
        return f"ONNX Runtime has no embedding of {bits} bits; choose bits {_listed(BLOCKS)}"
    if block < 16 or block & (block - 1):
        return f"ONNX Runtime has no embedding in blocks of {block}; choose a power of two from 16 on"
    return None


def _listed(numbers: Iterable[int]) -> str:
    """
    >>> _listed([2, 4, 8])
    '2, 4 or 8'
    """
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}"
