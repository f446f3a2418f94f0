"""targets: what a lowering is: steps, one after the other, and the operators that may remain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.graph import role
from edgewise.passes import Pass

Operators = Mapping[str, frozenset[str]]  # by domain; "" is the standard's


def operators(standard: str, contrib: str) -> Operators:
    """Operators of the standard and of ONNX Runtime, from their names with spaces between."""
    return {"": frozenset(standard.split()), "com.microsoft": frozenset(contrib.split())}


@dataclass(frozen=True)
class Dialect(Pass):
    """Rewrites the canonical graph for a kind of device. Doing it twice changes nothing.

    Afterwards the graph has no operator but those of `remaining`. Raises LoweringError for another one, by name.
    """

    remaining: ClassVar[Operators]

    def steps(self) -> tuple[Pass, ...]:
        raise NotImplementedError

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for step in self.steps():
            modified |= step(model).modified
        self._refuse_others(model.graph)
        if modified:
            forget_shapes(model.graph)
            model.graph.sort()
        return ir.passes.PassResult(model, modified)

    def _refuse_others(self, graph: ir.Graph) -> None:
        for node in graph:
            if node.op_type not in self.remaining.get(node.domain, ()):
                known = sorted(name for names in self.remaining.values() for name in names)
                raise LoweringError(
                    f"node '{node.name}' ({node.op_type}, role '{role(node)}') has no form in the dialect "
                    f"'{self.name.removeprefix('lower-')}'; it has {', '.join(known)}"
                )


def forget_shapes(graph: ir.Graph) -> None:
    """Shapes inside the graph are no longer those of the canonical one; ONNX Runtime infers them."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None
