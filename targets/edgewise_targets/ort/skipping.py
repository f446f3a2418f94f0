"""targets, ort: experts that a token skips, where gates are probabilities: by logits, before an operator chooses.

A gate below a share t of the largest is a logit below the largest one by more than -log t. Its place is taken by one
whose exponential is 0: for an expert of weight 0 the operators compute nothing (ONNX Runtime 1.31.1). Four small
operators on `[tokens, experts]`, where the canonical comparison comes after a choice of its own.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.graph import Roles
from edgewise.tensors import constant, streamed
from edgewise_targets.step import initializer, insert_before

NEVER = -10_000.0  # a logit whose exponential is 0; float16 has it


@dataclass(frozen=True)
class Skipping:
    """What is put before the node of a mixture; `share` is t."""

    graph: ir.Graph
    node: ir.Node
    share: float

    @classmethod
    def of(cls, graph: ir.Graph, node: ir.Node, roles: Roles, layer: int) -> "Skipping | None":
        """None where nothing is skipped."""
        for kept in roles.all("router.kept", layer):
            if kept.op_type == "Mul" and kept.inputs[1] is not None:
                share = float(streamed(kept.inputs[1].const_value).numpy()[0])
                return cls(graph, node, share) if share > 0 else None
        return None

    def apply(self, logits: ir.Value, *others: ir.Value) -> tuple[ir.Value, ...]:
        """The logits, and what stands beside them, of experts that are not skipped; all `[tokens, experts]`."""
        axes = initializer(self.graph, constant(np.array([-1], np.int64)), "experts.axis")
        largest = self._op("ReduceMax", "largest", logits, axes)
        limit = self._op("Add", "limit", largest, self._number(math.log(self.share)))
        low = self._op("Less", "low", logits, limit)
        kept = [self._op("Where", "kept", low, self._number(NEVER), logits)]
        kept += [self._op("Where", f"kept.{n}", low, self._number(0.0), value) for n, value in enumerate(others)]
        return tuple(kept)

    def _op(self, op_type: str, name: str, *inputs: ir.Value) -> ir.Value:
        return insert_before(self.node, op_type, inputs, [f"{self.node.name}.{name}"], role="router")[0]

    def _number(self, value: float) -> ir.Value:
        return initializer(self.graph, constant(np.array([value], np.float32)), f"experts.{value:.6g}")
