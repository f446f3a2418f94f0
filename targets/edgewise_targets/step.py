"""targets: what a step of a lowering is, and how it puts one operator in the place of others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.graph import layer, mark, role
from edgewise.passes import Pass
from edgewise.tensors import Streamed

CONTRIB = "com.microsoft"

Attributes = Mapping[str, int | float | str | Sequence[int]]
NONE: Attributes = {}


@dataclass(frozen=True)
class Step(Pass):
    """One idea of a lowering. Doing it twice changes nothing; afterwards no operator of `removes` is left."""

    removes: ClassVar[frozenset[str]] = frozenset()

    def rewrite(self, model: ir.Model) -> bool:
        """Change the graph; whether anything was to be changed."""
        raise NotImplementedError

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = self.rewrite(model)
        if modified:
            _remove_unused(model.graph)
            for domain in {node.domain for node in model.graph if node.domain}:
                model.graph.opset_imports.setdefault(domain, 1)
        for node in model.graph:
            if not node.domain and node.op_type in self.removes:
                raise LoweringError(
                    f"node '{node.name}' ({node.op_type}, role '{role(node)}') has no form in this dialect: "
                    f"'{self.name}' does not know it in this place"
                )
        return ir.passes.PassResult(model, modified)


def become(
    node: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Attributes = NONE,
    *,
    domain: str = CONTRIB,
) -> None:
    """Make a node another operator: its name, role, layer and outputs stay."""
    node.op_type, node.domain = op_type, domain
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    node.attributes.clear()
    for attribute in ir.convenience.convert_attributes(attributes):
        node.attributes.add(attribute)


def insert_before(
    anchor: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    names: Sequence[str],
    attributes: Attributes = NONE,
    *,
    role: str | None = None,
    domain: str = "",
) -> Sequence[ir.Value]:
    """The outputs, called `names`, of a new operator just before `anchor`, in the same layer."""
    node = ir.node(op_type, inputs, attributes=attributes, domain=domain, num_outputs=len(names), name=names[0])
    for value, name in zip(node.outputs, names, strict=True):
        value.name = name
    if role is not None:
        mark(node, role, layer(anchor))
    anchor.prepend(node)
    return node.outputs


def initializer(graph: ir.Graph, tensor: Streamed, name: str) -> ir.Value:
    """A constant tensor of the graph under that name; the one that is there already when it is asked for again."""
    if name in graph.initializers:
        return graph.initializers[name]
    tensor.name = name
    kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.dims)
    value = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def _remove_unused(graph: ir.Graph) -> None:
    for node in reversed(graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
            del graph.initializers[name]
