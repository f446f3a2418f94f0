"""sdk, calibration: the canonical graph cut where the residual stream passes from layer to layer.

A stage is a small graph of its own, made of copies of the nodes between two values. Its weights are inputs: a session
of it costs milliseconds, holds no weights, and whoever runs it gives it those that the model has at that moment.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import starmap

import onnx
import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import IR_VERSION, Linear, linears
from edgewise.tensors import Streamed, streamed

BATCH_TOKENS = 2048  # run through a stage at a time
INLINE_BYTES = 1 << 10  # up to this an initializer is a constant of the stage: axes, shapes, scalars


@dataclass(frozen=True)
class Stage:
    """The nodes from `starts` to `outputs`, ready to be run."""

    graph: bytes  # a serialized onnx.ModelProto
    inputs: tuple[str, ...]  # of the nodes: `starts`, and inputs of the whole graph
    weights: dict[str, Streamed]  # inputs too
    outputs: tuple[str, ...]


def values_of(model: ir.Model) -> dict[str, ir.Value]:
    """What the nodes of a graph compute, and its inputs, by name."""
    values = {str(value.name): value for value in model.graph.inputs}
    values |= {str(value.name): value for node in model.graph for value in node.outputs}
    return values


def linears_by_input(model: ir.Model) -> dict[int | None, dict[str, list[Linear]]]:
    """The matrix products of each layer (None: around the layers) by the name of the value that they multiply.

    Those of an expert are apart from the others, as other tokens count for them; its number follows the name.
    """
    layers: dict[int | None, dict[str, list[Linear]]] = {}
    for linear in linears(model):
        if linear.node.op_type == "MatMul":
            value = linear.node.inputs[0]
            assert value is not None
            name = str(value.name) if linear.expert is None else f"{value.name}.{linear.expert}"
            layers.setdefault(linear.layer, {}).setdefault(name, []).append(linear)
    return layers


def cut(model: ir.Model, outputs: Sequence[ir.Value], *, starts: Collection[ir.Value]) -> Stage:
    """The stage that computes `outputs` from `starts` and from the graph's inputs.

    Raises GraphError where it would need another layer's residual stream: then the layers are not a chain.
    """
    nodes, sources = _between(model, outputs, starts)
    inputs, weights, constants = [], {}, []
    for value in sources:
        if not value.is_initializer():
            inputs.append(value)
        elif (tensor := streamed(value.const_value)).nbytes <= INLINE_BYTES:
            constants.append(_constant(value, tensor))
        else:
            weights[str(value.name)] = tensor
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(node) for node in nodes],
        "stage",
        [*map(ir.serde.serialize_value, inputs), *starmap(_any_size, weights.items())],
        [ir.serde.serialize_value(value) for value in outputs],
        initializer=constants,
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version or IR_VERSION)
    names = tuple(str(value.name) for value in inputs)
    return Stage(proto.SerializeToString(deterministic=True), names, weights, tuple(str(v.name) for v in outputs))


def _between(
    model: ir.Model, outputs: Sequence[ir.Value], starts: Collection[ir.Value]
) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes that `outputs` need, in graph order, and the values that no node among them computes."""
    needed: set[ir.Node] = set()
    sources: dict[ir.Value, None] = {}
    queue = list(outputs)
    while queue:
        value = queue.pop()
        node = value.producer()
        if value in starts or node is None:
            sources[value] = None
        elif str(value.name).startswith("hidden.") and value not in outputs:
            wanted = ", ".join(str(output.name) for output in outputs)
            raise GraphError(f"'{wanted}' needs '{value.name}' as well: the layers of the graph are not a chain")
        elif node not in needed:
            needed.add(node)
            queue += [taken for taken in node.inputs if taken is not None]
    return [node for node in model.graph if node in needed], list(sources)


def _any_size(name: str, tensor: Streamed) -> onnx.ValueInfoProto:
    """A weight as an input: some rows of a table will do."""
    return onnx.helper.make_tensor_value_info(name, int(tensor.dtype), [None] * len(tensor.dims))


def _constant(value: ir.Value, tensor: Streamed) -> onnx.TensorProto:
    array = tensor.read(0, tensor.dims[0] if tensor.dims else 1).reshape(tensor.dims)
    return onnx.numpy_helper.from_array(array, str(value.name))
