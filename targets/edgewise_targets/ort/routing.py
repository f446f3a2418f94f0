"""targets, ort: what the operator of a mixture is told of its router.

QMoE and MoE choose the experts of the largest numbers that they are given, and weight them by the softmax of these
over the chosen. Logits are enough where gates are that. QMoE takes other gates beside what it chooses by; for MoE

    chosen by log(gates);   sum of gates * what it then gives
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.facts import Experts
from edgewise.graph import Roles
from edgewise.tensors import constant
from edgewise_targets.ort.skipping import Skipping
from edgewise_targets.step import initializer, insert_before

LEAST = 1e-7  # as gate, of experts that a token is not given to: float16 has it, and its logarithm is a number


@dataclass(frozen=True)
class Routing:
    """The router of a layer, in the place of the node that adds up what its experts give."""

    graph: ir.Graph
    node: ir.Node
    roles: Roles
    layer: int
    experts: Experts

    @property
    def is_softmax(self) -> bool:
        """Whether what is chosen are the largest probabilities, which are the gates, normalized or not."""
        e, others = self.experts, ("router.chosen", "router.scaled")
        stays = not any(self.roles.maybe(role, self.layer) for role in others)
        return stays and e.scores == "softmax" and not e.equal

    def quantized(self) -> tuple[ir.Value, ir.Value | None]:
        """What QMoE chooses by, and the gates beside it, both `[tokens, experts]`."""
        if self.is_softmax:
            beside = [] if self.experts.normalized else [self._flat(self._output("probabilities"))]
            logits, *weights = self._not_skipped(self._flat(self._logits), *beside)
            return logits, weights[0] if weights else None
        if self.experts.equal:
            logits = self._flat(self._logits)
            return logits, self._ones(logits)
        return self._flat(self._choice), self._flat(self._gates)

    def floats(self) -> tuple[ir.Value, ir.Value | None]:
        """What MoE chooses by, `[tokens, experts]`, and what it is multiplied by, `[batch, sequence, 1]`."""
        if self.is_softmax:
            (logits,) = self._not_skipped(self._flat(self._logits))
            gates = self.roles.maybe("router.kept", self.layer) or self.roles.one("router.top", self.layer)
            return logits, None if self.experts.normalized else self._total(gates.outputs[0])
        least = initializer(self.graph, constant(np.array(LEAST, np.float32)), "experts.least")
        name, before = f"{self.node.name}.gates", self.node
        (above,) = insert_before(before, "Max", [self._gates, least], [f"{name}.above"], role="router")
        (logarithms,) = insert_before(before, "Log", [above], [f"{name}.log"], role="router")
        return self._flat(logarithms), self._total(self._gates)

    def _not_skipped(self, *values: ir.Value) -> tuple[ir.Value, ...]:
        """Logits, and what stands beside them, without experts that a token skips."""
        skipping = Skipping.of(self.graph, self.node, self.roles, self.layer)
        return skipping.apply(*values) if skipping else values

    def _ones(self, like: ir.Value) -> ir.Value:
        name, one = f"{self.node.name}.ones", initializer(self.graph, constant(np.ones(1, np.float32)), "experts.one")
        (shape,) = insert_before(self.node, "Shape", [like], [f"{name}.shape"], role="router")
        return insert_before(self.node, "Expand", [one, shape], [name], role="router")[0]

    @property
    def _logits(self) -> ir.Value:
        biased = self.roles.maybe("router.bias", self.layer)
        return (biased or self.roles.one("router", self.layer)).outputs[0]

    @property
    def _choice(self) -> ir.Value:
        (value, _) = self.roles.one("router.top", self.layer).inputs
        assert value is not None
        return value

    @property
    def _gates(self) -> ir.Value:
        """Of all experts, `[batch, sequence, experts]`: what is split among them."""
        (value, *_) = self.roles.one("router.gates", self.layer).inputs
        assert value is not None
        return value

    def _output(self, part: str) -> ir.Value:
        return self.roles.one(f"router.{part}", self.layer).outputs[0]

    def _flat(self, value: ir.Value) -> ir.Value:
        """`[batch, sequence, experts]` as `[tokens, experts]`."""
        count = self.experts.count
        shape = initializer(self.graph, constant(np.array([-1, count], np.int64)), f"experts.{count}")
        return insert_before(self.node, "Reshape", [value, shape], [f"{value.name}.flat"], role="router")[0]

    def _total(self, gates: ir.Value) -> ir.Value:
        axis = initializer(self.graph, constant(np.array([-1], np.int64)), "experts.axis")
        name, inputs = f"{self.node.name}.total", [gates, axis]
        return insert_before(self.node, "ReduceSum", inputs, [name], {"keepdims": 1}, role="expert.sum")[0]
