"""exporters, foreign: what a value of a graph leads to, and comes from."""

from collections.abc import Callable, Collection, Iterator

import onnx_ir as ir

Stop = Callable[[ir.Node], bool]


def below(values: Collection[ir.Value], *, stop: Stop | None = None) -> set[ir.Node]:
    """The nodes that are computed from values. Those that `stop` are among them, and what comes after them is not."""
    found: set[ir.Node] = set()
    queue = [node for value in values for node in value.consumers()]
    while queue:
        node = queue.pop()
        if node not in found:
            found.add(node)
            if stop is None or not stop(node):
                queue += [user for value in node.outputs for user in value.consumers()]
    return found


def above(values: Collection[ir.Value | None], *, stop: Stop | None = None) -> set[ir.Node]:
    """The nodes that values are computed by; those that `stop` are among them, and what comes before them is not."""
    found: set[ir.Node] = set()
    queue = [node for value in values if value is not None and (node := value.producer())]
    while queue:
        node = queue.pop()
        if node not in found:
            found.add(node)
            if stop is None or not stop(node):
                queue += [maker for value in node.inputs if value is not None and (maker := value.producer())]
    return found


def is_linear(node: ir.Node) -> bool:
    """Whether it multiplies an activation by a constant matrix."""
    if node.op_type != "MatMul" or node.domain:
        return False
    x, weight = node.inputs
    return x is not None and not is_constant(x) and weight is not None and is_constant(weight)


def is_constant(value: ir.Value) -> bool:
    """Whether it is a weight, or one that is turned."""
    node = value.producer()
    if node is not None and node.op_type == "Transpose":
        value = node.inputs[0] or value
    return value.is_initializer() and not value.is_graph_input()


def measures(node: ir.Node) -> bool:
    """Whether it gives a size: what is computed from that depends on no activation."""
    return node.op_type in ("Shape", "Size")


def by_name(model: ir.Model, kind: str) -> Iterator[tuple[int, str, ir.Value]]:
    """Layer, part and value of all inputs `past_key_values`, or of all outputs `present`."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        name, _, rest = str(value.name).partition(".")
        if name == kind:
            layer, _, part = rest.partition(".")
            yield int(layer), part, value
