"""sdk: the nodes of a graph that compute sizes only: shapes, lengths, bounds, and no value of the model.

ONNX Runtime computes these on the CPU beside any provider of its own, to spare the way there. By its operator a node
cannot be told: the Add of a residual is one of lengths as well. By its role and by what goes in it can.
"""

from collections import Counter

import onnx_ir as ir

from edgewise.graph import role

# Operators that give integers for integers.
ARITHMETIC = {
    "Add", "Concat", "Div", "Equal", "Expand", "Gather", "Max", "Min", "Mul", "Neg", "Range", "ReduceSum", "Reshape",
    "Slice", "Squeeze", "Sub", "Unsqueeze", "Where",
}  # fmt: skip
MEASURES = frozenset({"Shape", "Size"})  # give integers for anything
FILLS = {"Cast": "to", "ConstantOfShape": "value"}  # give what an attribute says
INTEGERS = frozenset({ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64})  # quantized values have 8 bits or fewer


def of_sizes(graph: ir.Graph) -> frozenset[tuple[str, str]]:
    """Name and operator of each node that computes sizes only: it has no role, and nothing but integers goes through.

    A node of a name that another one has, too, is none: nobody could tell which is meant.
    """
    nodes, sizes, found = list(graph.all_nodes()), set[ir.Value](), list[ir.Node]()
    for node in nodes:
        if _gives_integers(node, sizes):
            sizes.update(node.outputs)
            if role(node) is None:
                found.append(node)
    names = Counter(node.name for node in nodes)
    return frozenset((node.name, node.op_type) for node in found if node.name and names[node.name] == 1)


def _gives_integers(node: ir.Node, sizes: set[ir.Value]) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in MEASURES:
        return True
    if not all(value is None or value in sizes or _is_integer(value) for value in node.inputs):
        return False
    return node.op_type in ARITHMETIC or (node.op_type in FILLS and _filling(node) in INTEGERS)


def _is_integer(value: ir.Value) -> bool:
    """Whether an input or initializer is one; of what nodes compute, their inputs tell."""
    return value.producer() is None and value.dtype in INTEGERS


def _filling(node: ir.Node) -> ir.DataType:
    attribute = node.attributes.get(FILLS[node.op_type])
    if attribute is None:
        return ir.DataType.FLOAT  # ConstantOfShape
    return attribute.as_tensor().dtype if node.op_type == "ConstantOfShape" else ir.DataType(attribute.as_int())
