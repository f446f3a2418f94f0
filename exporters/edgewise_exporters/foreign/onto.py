"""exporters, foreign: canonical operators as they are put into a graph that is there, or into one of their own."""

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from edgewise.graph import IR_VERSION, OPSET
from edgewise_exporters.decoder.builder import Builder, Shape


class Onto(Builder):
    """A builder whose graph has some inputs already."""

    def __init__(self, inputs: Mapping[str, ir.Value]) -> None:
        super().__init__()
        self.there = inputs

    def input(self, name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
        return self.there[name] if name in self.there else super().input(name, dtype, shape)

    def put(self, graph: ir.Graph) -> None:
        """Into the graph, whose nodes are to be sorted after that."""
        graph.inputs.extend(self.inputs)
        for value in self.initializers.values():
            if str(value.name) not in graph.initializers:
                graph.register_initializer(value)
        graph.extend(self.nodes)


def alone(builder: Builder, outputs: list[ir.Value]) -> onnx.ModelProto:
    """The operators of a builder as a model, which takes what they read."""
    graph = ir.Graph(
        [value for value in builder.inputs if value.uses()],
        outputs,
        nodes=builder.nodes,
        initializers=list(builder.initializers.values()),
        opset_imports={"": OPSET},
        name="canonical",
    )
    proto: onnx.ModelProto = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))
    return proto
