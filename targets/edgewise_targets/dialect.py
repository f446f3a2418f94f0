"""targets: what a lowering is: steps, one after the other."""

from dataclasses import dataclass

import onnx_ir as ir

from edgewise.passes import Pass


@dataclass(frozen=True)
class Dialect(Pass):
    """Rewrites the canonical graph for a kind of device. Doing it twice changes nothing."""

    def steps(self) -> tuple[Pass, ...]:
        raise NotImplementedError

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for step in self.steps():
            modified |= step(model).modified
        if modified:
            _forget_shapes(model.graph)
            model.graph.sort()
        return ir.passes.PassResult(model, modified)


def _forget_shapes(graph: ir.Graph) -> None:
    """Shapes inside the graph are no longer those of the canonical one; ONNX Runtime infers them."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None
