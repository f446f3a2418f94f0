"""sdk, planner: a lowered graph, counted: which matrices it multiplies with, in which formats, and what lies between.

Operators that are not known here cost what their results take to be written; the attention of a layer is what the
facts say, whatever operators it is made of.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from edgewise.facts import AnyFacts, Facts
from edgewise.graph import ZEROS, any_facts, expert, layer, role
from edgewise.planner.weights import Weights
from edgewise.planner.work import Heads, Product, Table, Work
from edgewise.runtime.signature import KEEP
from edgewise.sizes import distinct, stored_bytes
from edgewise.tensors import storage, streamed

PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "Conv")
INTEGER = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul")
ALL = ("MatMulNBits", *PRODUCTS, *INTEGER)
THROUGH = ("DequantizeLinear", "Transpose", "Cast", "Reshape")  # between a constant and what reads it

_DTYPES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.INT8: "int8",
    ir.DataType.UINT8: "int8",
    ir.DataType.INT4: "int4",
    ir.DataType.UINT4: "int4",
}


def count(model: ir.Model, *, capacity: int = 0, width: int = 0) -> Work:
    """What a lowered graph takes. `capacity` and `width` are those of graphs of fixed lengths."""
    facts = any_facts(model)
    products = tuple(_products(model, facts))
    tables = tuple(_tables(model))
    elements, late, live = _between(model, facts)
    matrices = sum(product.stored for product in products) + sum(table.stored for table in tables)
    whole = sum(map(stored_bytes, distinct(model)))
    return Work(
        products=products,
        attention=tuple(_attention(model, facts, fixed=bool(capacity))) if isinstance(facts, Facts) else (),
        tables=tables,
        operators=_operators(model.graph),
        elements=elements,
        late_elements=late,
        live=live,
        constants=max(0, whole - matrices),
        positions=facts.context_length,
        capacity=capacity,
        width=width,
    )


def _products(model: ir.Model, facts: AnyFacts) -> Iterator[Product]:
    scored, zeros = _scored(model.graph), model.metadata_props.get(ZEROS)
    for node in model.graph:
        sparse = layer(node) is not None and not (role(node) or "").endswith("router")
        for product in _of_node(node, facts, scored=node in scored):
            yield replace(product, zeros=zeros) if sparse else product


def _of_node(node: ir.Node, facts: AnyFacts, *, scored: bool) -> Iterator[Product]:
    name = role(node) or ""
    if node.op_type == "MatMulNBits":
        rows, columns = node.attributes.get_int("N", 0), node.attributes.get_int("K", 0)
        yield Product(name, rows, columns, _blocks(node, node.inputs[2:4]), scored=scored)
    elif node.op_type in (*PRODUCTS, *INTEGER):
        for weights in map(_matrix, node.inputs[1:2]):
            if weights is not None:
                yield Product(name, *_sizes(node, weights), _format(node, weights), scored=scored)
    elif node.op_type in ("MoE", "QMoE"):
        yield from _experts(node, facts, scored=scored)


def _matrix(value: ir.Value | None) -> ir.Value | None:
    """The constant matrix behind an input, through what unpacks or turns it; None for an activation."""
    while value is not None and (node := value.producer()) and node.op_type in THROUGH:
        value = node.inputs[0]
    if value is None or value.const_value is None or len(value.const_value.shape) < 2:
        return None
    return value


def _sizes(node: ir.Node, value: ir.Value) -> tuple[int, int]:
    """Rows (outputs) and columns of a matrix `[columns, rows]`, or of one that the operator turns."""
    turned = node.op_type == "Conv" or bool(node.attributes.get_int("transB", 0)) or _is_turned(node.inputs[1])
    columns, *rest = streamed(value.const_value).dims
    return (columns, math.prod(rest)) if turned else (math.prod(rest), columns)


def _is_turned(value: ir.Value | None) -> bool:
    """Whether an operator turns a constant on its way to the product."""
    turned = False
    while value is not None and (node := value.producer()) and node.op_type in THROUGH:
        turned ^= node.op_type == "Transpose"
        value = node.inputs[0]
    return turned


def _format(node: ir.Node, value: ir.Value) -> Weights:
    assert value.const_value is not None
    dtype = _DTYPES.get(value.const_value.dtype, "float32")
    if node.op_type in INTEGER:
        return Weights(dtype, block=0)
    readers = [reader for reader in value.consumers() if reader.op_type == "DequantizeLinear"]
    if not readers:
        return Weights(dtype)
    block = readers[0].attributes.get_int("block_size", 0)
    return Weights(dtype, block=block, zero_points=len(readers[0].inputs) > 2, scale=_width(readers[0].inputs[1]))


def _blocks(node: ir.Node, sides: Sequence[ir.Value | None]) -> Weights:
    """Of an operator with attributes `bits` and `block_size`; its scales, then its zero points."""
    bits, block = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 32)
    return Weights(f"int{bits}", block, zero_points=len(sides) > 1 and sides[1] is not None, scale=_width(sides[0]))


def _width(value: ir.Value | None) -> int:
    """Bytes of one number of a constant."""
    return 4 if value is None or value.dtype is None else value.dtype.bitwidth // 8


def _experts(node: ir.Node, facts: AnyFacts, *, scored: bool) -> Iterator[Product]:
    """The stacked matrices of a layer's experts, `[experts, rows, bytes]`."""
    number = layer(node)
    mixture = facts.experts[number] if isinstance(facts, Facts) and number is not None and facts.experts else None
    bits = node.attributes.get_int("expert_weight_bits", 4) if node.op_type == "QMoE" else 0
    for index, value in enumerate(node.inputs):
        tensor = value.const_value if value is not None else None
        if mixture is None or tensor is None or len(tensor.shape) != 3 or (bits and tensor.dtype != ir.DataType.UINT8):
            continue
        if bits and index not in (2, 5, 8):  # the matrices: scales and zero points lie beside them
            continue
        experts, rows, width = streamed(tensor).dims
        block = node.attributes.get_int("block_size", 0)
        weights = Weights(f"int{bits}", block) if bits else Weights(_DTYPES.get(tensor.dtype, "float32"))
        columns = width * 8 // bits if bits else width
        yield Product("expert", rows, columns, weights, experts, mixture.evaluated or mixture.active, scored)


def _tables(model: ir.Model) -> Iterator[Table]:
    """Embeddings: what tokens are looked up in."""
    multiplied = [_matrix(node.inputs[1]) for node in model.graph if node.op_type in ALL]
    kept = {storage(value.const_value) for value in multiplied if value is not None and value.const_value is not None}
    for node in model.graph:
        value = node.inputs[0] if node.inputs else None
        if role(node) != "embedding" or value is None or value.const_value is None or len(value.const_value.shape) != 2:
            continue
        rows, width = streamed(value.const_value).dims
        tied = storage(value.const_value) in kept
        if node.op_type == "GatherBlockQuantized":
            weights = _blocks(node, node.inputs[2:4])
            yield Table(rows, width * 8 // weights.bits, weights, tied)
        elif node.op_type == "Gather":
            yield Table(rows, width, Weights(_DTYPES.get(value.const_value.dtype, "float32")), tied)


def _attention(model: ir.Model, facts: Facts, *, fixed: bool) -> Iterator[Heads]:
    """Of each layer. Where lengths are fixed, what a window hides is computed, too."""
    for spec, width in zip(facts.attention, _caches(model, facts), strict=True):
        window = None if fixed else spec.window
        yield Heads(spec.heads, spec.kv_heads, spec.head_dim, window, *width, ring=spec.ring)


def _caches(model: ir.Model, facts: Facts) -> Iterator[tuple[str, int]]:
    """The format of each layer's keys, and its bytes."""
    inputs: Mapping[str | None, ir.Value] = {value.name: value for value in model.graph.inputs}
    for index in range(facts.layers):
        past = inputs.get(f"past_key_values.{index}.key")
        dtype = ir.DataType.FLOAT if past is None or past.dtype is None else past.dtype
        yield _DTYPES.get(dtype, "float32"), dtype.bitwidth // 8


def _scored(graph: ir.Graph) -> set[ir.Node]:
    """Operators behind the cut that leaves only the tokens whose scores are asked for."""
    reached: set[ir.Value | None] = {value for value in graph.inputs if value.name == KEEP}
    nodes = set()
    for node in graph:
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
            nodes.add(node)
    return nodes


def _operators(graph: ir.Graph) -> int:
    """Operators, where all that play one role in a layer are one: a norm in pieces is fused again by who runs it."""
    named = {(role(node), layer(node), expert(node)) for node in graph if role(node)}
    return len(named) + sum(1 for node in graph if not role(node))


def _between(model: ir.Model, facts: AnyFacts) -> tuple[int, int, int]:
    """Numbers that operators read and write for a token, but for products and attention; for one with scores, beside
    those; and numbers alive at once, at most, for one without.
    """
    scored, widths = _scored(model.graph), dict[ir.Value, int]()
    last = {value: index for index, node in enumerate(model.graph) for value in node.inputs if value is not None}
    elements = late = now = live = 0
    for index, node in enumerate(model.graph):
        width = _gives(node, widths, facts)
        fused = node.op_type in ALL or role(node) == "attention"
        moved = 0 if fused else _moved(node, width, widths)
        if node in scored:
            late += moved
        else:
            elements += moved
        for value in node.outputs:
            if value in last and not value.is_graph_output():
                widths[value] = width
                now += width if node not in scored else 0
        live = max(live, now)
        read = {value for value in node.inputs if value in widths and last[value] == index}
        now -= sum(widths[value] for value in read if value.producer() not in scored)
    return elements, late, live


def _moved(node: ir.Node, width: int, widths: Mapping[ir.Value, int]) -> int:
    """Numbers that an operator reads and writes for a token."""
    read = sum(widths.get(value, 0) for value in node.inputs if value is not None)
    return read + width * sum(1 for value in node.outputs if value.uses() or value.is_graph_output())


def _gives(node: ir.Node, widths: Mapping[ir.Value, int], facts: AnyFacts) -> int:
    """Numbers of a result for each token."""
    if node.op_type == "MatMulNBits":
        return node.attributes.get_int("N", 0)
    if node.op_type in (*PRODUCTS, *INTEGER) and len(node.inputs) > 1 and (matrix := _matrix(node.inputs[1])):
        return _sizes(node, matrix)[0]
    if role(node) == "embedding":
        return facts.hidden_size
    if node.op_type.startswith("Reduce"):
        return 1
    number = layer(node)
    if role(node) == "attention" and number is not None and isinstance(facts, Facts):
        return facts.attention[number].heads * facts.attention[number].head_dim
    return max((widths.get(value, 0) for value in node.inputs if value is not None), default=0)
