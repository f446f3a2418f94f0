"""sdk, lint: formats and operators that ONNX Runtime accepts on a processor, and then computes many times slower.

Measured on onnxruntime 1.31.1, x86-64: what has no kernel of its own is dequantized anew for every token.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import onnx_ir as ir

from edgewise.bundle.manifest import CPU
from edgewise.lint.finding import Finding, at, operator, provider
from edgewise.target import Target

BLOCKS = {2: (32, 64, 128), 4: (16, 32, 64, 128, 256), 8: (16, 32, 64, 128, 256)}

OPERATORS: Mapping[str, tuple[str, str]] = {
    "com.microsoft:MatMulBnb4": (
        "products with NF4 and FP4 weights are 60 times slower than with int4",
        "quantize to bits 4",
    ),
    "com.microsoft:GatedRMSNorm": (
        "this norm is computed without vector instructions, six times slower than its parts",
        "write it as SimplifiedLayerNormalization, QuickGelu and Mul",
    ),
}

Problem = tuple[str, str]  # what is wrong, and what to choose


def formats(model: ir.Model, target: Target) -> Iterable[Finding]:
    return slow(model) if provider(target) == CPU.name else ()


def slow(model: ir.Model) -> Iterator[Finding]:
    """What a processor computes slowly, or not at all."""
    for node in model.graph.all_nodes():
        name = operator(node)
        check = CHECKS.get(name)
        problem = check(node) if check else OPERATORS.get(name)
        if problem:
            yield Finding("slow", at(node), *problem)


def _product(node: ir.Node) -> Problem | None:
    bits, block = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 0)
    if bits not in BLOCKS:
        return f"ONNX Runtime has no product with {bits}-bit weights", f"choose bits {_listed(BLOCKS)}"
    if block not in BLOCKS[bits]:
        sizes = _listed(BLOCKS[bits])
        return f"{bits}-bit weights in blocks of {block} fall off the fast path", f"choose block_size {sizes}"
    if bits != 4 and node.attributes.get_int("accuracy_level", 0) != 4:
        problem = f"{bits}-bit weights are 100 times slower with float activations"
        return problem, "choose accuracy_level 4, or bits 4"
    zero_points = node.inputs[3] if len(node.inputs) > 3 else None
    if zero_points is not None and zero_points.dtype not in (None, ir.DataType.UINT8):
        return "float zero points are 100 times slower", "choose whole ones (packed uint8), or a symmetric format"
    return None


def _rows(node: ir.Node) -> Problem | None:
    bits, block = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 0)
    if bits not in BLOCKS:
        return f"ONNX Runtime has no embedding of {bits} bits", f"choose bits {_listed(BLOCKS)}"
    if block < 16 or block & (block - 1):
        return f"ONNX Runtime has no embedding in blocks of {block}", "choose a power of two from 16 on"
    return None


def _experts(node: ir.Node) -> Problem | None:
    if not node.attributes.get_int("block_size", 0):
        return "experts with one scale a row are twice as slow as floats", "quantize them in blocks"
    return None


def _integers(node: ir.Node) -> Problem | None:
    x = node.inputs[0]
    if x is not None and x.dtype == ir.DataType.INT8:
        return "products of signed activations are 25 times slower", "quantize activations to uint8"
    return None


CHECKS: Mapping[str, Callable[[ir.Node], Problem | None]] = {
    "com.microsoft:MatMulNBits": _product,
    "com.microsoft:GatherBlockQuantized": _rows,
    "com.microsoft:QMoE": _experts,
    "com.microsoft:MatMulIntegerToFloat": _integers,
    "MatMulInteger": _integers,
}


def _listed(numbers: Iterable[int]) -> str:
    """
    >>> _listed([2, 4, 8])
    '2, 4 or 8'
    """
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}"
