"""sdk, lint: the formats of weights: their type, how they are encoded, their blocks, zero points."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgewise.lint.finding import Finding, at, dtype_name, operator
from edgewise.options import known
from edgewise.target import Numerics, Target

BLOCKS = ("matmulnbits", "qdq")  # encodings that have them
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


@dataclass(frozen=True)
class Stored:
    """How a node's weights are stored."""

    kind: str  # "int4", "float16", ...
    encoding: str = ""  # "matmulnbits", "qdq", "matmulinteger"; empty: floats
    block_size: int = 0  # 0: a scale for each row, or one for all
    symmetric: bool = True


def formats(model: ir.Model, target: Target) -> Iterator[Finding]:
    numerics = target.numerics
    for node in model.graph.all_nodes():
        stored = _stored(node)
        if stored:
            for problem, fix in _problems(stored, numerics):
                yield Finding("weights", at(node), problem, fix)


def _problems(stored: Stored, numerics: Numerics) -> Iterator[tuple[str, str]]:
    if numerics.weights and stored.kind not in numerics.weights:
        yield f"the device has no products with {stored.kind} weights", f"choose {known(numerics.weights)}"
    if stored.encoding and numerics.encodings and stored.encoding not in numerics.encodings:
        yield f"weights are stored as {stored.encoding}, which it does not take", f"choose {known(numerics.encodings)}"
    if stored.encoding in BLOCKS and numerics.block_sizes and stored.block_size not in numerics.block_sizes:
        sizes = " or ".join(str(size) for size in numerics.block_sizes if size)
        found = f"blocks of {stored.block_size}" if stored.block_size else "rows with one scale"
        yield f"{found} have no fast kernel", f"quantize with block_size {sizes or '0'}"
    if numerics.symmetric and not stored.symmetric:
        yield "weights with zero points have no fast kernel", "quantize with symmetric = true"


def _stored(node: ir.Node) -> Stored | None:
    read = READ.get(operator(node))
    return read(node) if read else None


def _blocks(zero_points: int) -> Callable[[ir.Node], Stored]:
    """Of an operator that has bits and blocks as attributes, and zero points as that input."""

    def read(node: ir.Node) -> Stored:
        bits = node.attributes.get_int("bits", node.attributes.get_int("expert_weight_bits", 4))
        block = node.attributes.get_int("block_size", 0)
        return Stored(f"int{bits}", "matmulnbits", block, symmetric=not _given(node, zero_points))

    return read


def _dequantized(node: ir.Node) -> Stored | None:
    """Of weights that go through DequantizeLinear; activations that do have no constant there."""
    value = node.inputs[0]
    if value is None or not value.is_initializer():
        return None
    kind = dtype_name(value.dtype).removeprefix("u")
    return Stored(kind, "qdq", node.attributes.get_int("block_size", 0), symmetric=not _given(node, 2))


def _integers(weight: int) -> Callable[[ir.Node], Stored | None]:
    def read(node: ir.Node) -> Stored | None:
        return Stored("int8", "matmulinteger") if _given(node, weight) else None

    return read


def _floats(weight: int) -> Callable[[ir.Node], Stored | None]:
    """Of an operator whose weight may be a constant matrix of floats."""

    def read(node: ir.Node) -> Stored | None:
        value = node.inputs[weight]
        if value is None or not value.is_initializer() or value.dtype not in FLOATS or len(value.shape or ()) < 2:
            return None
        return Stored(dtype_name(value.dtype))

    return read


def _given(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None


READ: Mapping[str, Callable[[ir.Node], Stored | None]] = {
    "com.microsoft:MatMulNBits": _blocks(3),
    "com.microsoft:GatherBlockQuantized": _blocks(3),
    "com.microsoft:QMoE": _blocks(11),
    "com.microsoft:MoE": _floats(2),
    "com.microsoft:FusedMatMul": _floats(1),
    "com.microsoft:MatMulIntegerToFloat": _integers(1),
    "com.microsoft:DynamicQuantizeMatMul": _integers(1),
    "DequantizeLinear": _dequantized,
    "MatMulInteger": _integers(1),
    "MatMul": _floats(1),
    "Gemm": _floats(1),
    "Gather": _floats(0),
}
