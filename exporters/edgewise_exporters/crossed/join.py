"""exporters, crossed: the graphs of an encoder-decoder as one, with the operators that they were traced to.

optimum writes an encoder; a decoder's first step, which also computes keys and values of the source for each layer;
and its other steps, which are given them. The last one does for all steps, once the products that make these keys and
values stand behind the encoder. What is left is the graph that `edgewise.crossing` cuts.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgewise.crossing import INPUT_IDS, SOURCE_IDS, crossing
from edgewise.errors import GraphError
from edgewise.graph import layer, mark, role
from edgewise.tensors import constant, storage

LENGTH = "encoder_sequence_length"
SPLIT = (0, 2, 1, 3)  # of heads and tokens
PREFIX = "source/"  # of what the encoder brings along


def joined(encoder: ir.Model, first: ir.Model, step: ir.Model, layers: int) -> ir.Model:
    """`step`, with the others in it. Raises GraphError for graphs that are not as described."""
    graph, ids = step.graph, _input(SOURCE_IDS, (1, LENGTH))
    place = graph[0]
    mask = _ones(place, _op(place, "Shape", [ids], "source.shape"), "source.mask")
    given = _take_over(graph, encoder.graph, {INPUT_IDS: ids, "attention_mask": mask})
    hidden = given["last_hidden_state"]
    pasts = {str(value.name): value for value in graph.inputs}
    for index in range(layers):
        for part in ("key", "value"):
            past = pasts.pop(f"past_key_values.{index}.encoder.{part}")
            past.replace_all_uses_with(_project(graph, place, first.graph, hidden, index, part))
    _close(graph, place, pasts, ids)
    for value in graph.outputs:
        value.name = str(value.name).replace(".decoder.", ".")
    graph.sort()
    return step


def _close(graph: ir.Graph, place: ir.Node, pasts: dict[str, ir.Value], ids: ir.Value) -> None:
    """The inputs of a decoder, and the source."""
    keys = next(value for node in graph for value in node.outputs if value.name == crossing(0, "key"))
    one = _constant(graph, "source.one", 1)
    length = _op(place, "Shape", [keys], "source.length", start=2, end=3)
    shape = _op(place, "Concat", [one, length], "source.sizes", axis=0)
    pasts.pop("encoder_attention_mask").replace_all_uses_with(_ones(place, shape, "source.seen"))
    for name in [name for name in pasts if name != INPUT_IDS and not name.startswith("past_key_values.")]:
        if pasts.pop(name).uses():
            raise GraphError(f"the traced decoder reads '{name}', which nobody would feed")
    for name, value in pasts.items():
        value.name = name.replace(".decoder.", ".")
    valid = _input("attention_mask", ("batch_size", "total_sequence_length"))
    graph.inputs[:] = [pasts.pop(INPUT_IDS), valid, *pasts.values(), ids]


def _take_over(graph: ir.Graph, other: ir.Graph, inputs: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """Bring the nodes and constants of another graph in front of all others; what it gives, by name."""
    outputs, nodes, start = {str(value.name): value for value in other.outputs}, list(other), graph[0]
    for value in list(other.inputs):
        if value.uses():
            value.replace_all_uses_with(inputs[str(value.name)])
    other.outputs.clear()
    for value in list(other.initializers.values()):
        _bring(graph, value)
    other.remove(nodes)
    for node in nodes:
        node.name = f"{PREFIX}{node.name}"
        if (name := role(node)) is not None and name != "embedding":
            mark(node, f"encoder.{name}", layer(node))
        for value in node.outputs:
            value.name = f"{PREFIX}{value.name}" if value.name else value.name
    graph.insert_before(start, nodes)
    return outputs


def _bring(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """A constant of another graph: the one that is there already where it has the same bytes under its name."""
    name, there = str(value.name), graph.initializers.get(str(value.name))
    assert value.const_value is not None
    if there is not None and there.const_value is not None and storage(there.const_value) == storage(value.const_value):
        value.replace_all_uses_with(there)
        return there
    if value.graph is not None:
        del value.graph.initializers[name]
    value.name = name if there is None else f"{PREFIX}{name}"
    graph.register_initializer(value)
    return value


def _project(graph: ir.Graph, place: ir.Node, first: ir.Graph, hidden: ir.Value, index: int, part: str) -> ir.Value:
    """The keys, or the values, of the source in a layer: what the first step makes of the encoder's states."""
    name = f"present.{index}.encoder.{part}"
    output = next((value for value in first.outputs if value.name == name), None)
    chain = _chain(output)
    x = hidden
    for node in reversed(chain):
        inputs = [_bring(graph, value) if value.is_initializer() else x for value in node.inputs if value is not None]
        x = _op(place, node.op_type, inputs, f"{PREFIX}{index}.{part}.{node.op_type}")
        if node.op_type == "MatMul" and (made := x.producer()):
            mark(made, f"cross.{part[0]}", index)
    heads, size = _heads(output)
    shape = graph.initializers.get("source.heads") or _constant(graph, "source.heads", 0, 0, heads, size)
    split = _op(place, "Reshape", [x, shape], f"{PREFIX}{index}.{part}.split")
    return _op(place, "Transpose", [split], crossing(index, part), perm=SPLIT)


def _chain(output: ir.Value | None) -> list[ir.Node]:
    """The products and additions between the states of an encoder and heads, from the last one."""
    turn = output.producer() if output is not None else None
    split = turn.inputs[0].producer() if turn is not None and turn.op_type == "Transpose" and turn.inputs[0] else None
    if (
        turn is None
        or split is None
        or split.op_type != "Reshape"
        or tuple(turn.attributes.get_ints("perm", ())) != SPLIT
    ):
        raise GraphError(f"the first step gives '{output and output.name}' in another way than by heads")
    chain, value = list[ir.Node](), split.inputs[0]
    while value is not None and (node := value.producer()) is not None:
        chain.append(node)
        value = next((each for each in node.inputs if each is not None and not each.is_initializer()), None)
        if node.op_type not in ("MatMul", "Add"):
            raise GraphError(f"the first step computes '{output and output.name}' by {node.op_type}")
    if value is None or value.name != "encoder_hidden_states":
        raise GraphError(f"the first step does not compute '{output and output.name}' of the encoder's states")
    return chain


def _heads(output: ir.Value | None) -> tuple[int, int]:
    shape = output.shape if output is not None else None
    if shape is None or not isinstance(shape[1], int) or not isinstance(shape[3], int):
        raise GraphError(f"the first step does not say how many heads '{output and output.name}' has")
    return shape[1], shape[3]


def _input(name: str, shape: tuple[int | str, ...]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(shape))


def _constant(graph: ir.Graph, name: str, *numbers: int) -> ir.Value:
    tensor = constant(np.array(numbers, np.int64))
    tensor.name = name
    shape = ir.Shape(tensor.dims)
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def _ones(place: ir.Node, shape: ir.Value, name: str) -> ir.Value:
    value = ir.AttrTensor("value", ir.tensor(np.ones(1, np.int64)))
    node = ir.Node("", "ConstantOfShape", [shape], [value], name=name)
    place.prepend(node)
    node.outputs[0].name = name
    return node.outputs[0]


def _op(
    place: ir.Node, op_type: str, inputs: list[ir.Value], name: str, **attributes: int | tuple[int, ...]
) -> ir.Value:
    """The result of a new node before all others, which has its name."""
    node = ir.node(op_type, inputs, attributes=attributes, name=name)
    place.prepend(node)
    node.outputs[0].name = name
    return node.outputs[0]
