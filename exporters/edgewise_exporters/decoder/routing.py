"""exporters, decoder: which experts a token is given to, and with which gates.

p = softmax(x Wr + b), or sigmoid(x Wr + b);   c = p, or p plus a correction of each expert;   chosen: the largest few c
g = p of the chosen (divided by their sum where they are normalized), times a scale; 0 for all others

Of experts in groups (arXiv 2412.19437) those are chosen among that are in the best groups: a group is worth the sum of
its two largest c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.facts import Experts
from edgewise_exporters.decoder.builder import INT64, TOKENS
from edgewise_exporters.decoder.layer import Layer
from edgewise_exporters.decoder.mixture import Mixture
from edgewise_exporters.decoder.packed.matrix import Matrix

OPERATORS: Mapping[str, tuple[str, dict[str, int]]] = {"softmax": ("Softmax", {"axis": -1}), "sigmoid": ("Sigmoid", {})}
BEST = 2  # experts of a group that say what it is worth


def route(layer: Layer, x: ir.Value, experts: Experts, mixture: Mixture) -> tuple[ir.Value, ...]:
    """The weight of each expert for each token, `[batch, sequence, 1]`; 0 where it is not among the active ones."""
    return _Router(layer, experts, mixture).gates(x)


@dataclass(frozen=True)
class _Router:
    layer: Layer
    experts: Experts
    mixture: Mixture

    def gates(self, x: ir.Value) -> tuple[ir.Value, ...]:
        scores = self._scores(x)
        choice = self._among_groups(self._corrected(scores))
        values, chosen = self._top("router.top", choice, self.experts.active, "top", "chosen")
        if choice is not scores:
            shape = (*TOKENS, self.experts.active)
            values = self._op("router.chosen", "GatherElements", scores, chosen, name="scores", shape=shape, axis=-1)
        return self._split(self._spread(scores, chosen, self._weights(values)))

    def _scores(self, x: ir.Value) -> ir.Value:
        count, path, weights = self.experts.count, f"{self.layer.path}{self.mixture.router}", self.layer.weights
        matrix = Matrix(weights.take(f"{path}.weight", count, self.layer.architecture.facts.hidden_size))
        vector = weights.take(f"{path}.bias", count) if self.mixture.router_bias else None
        logits = self.layer.multiply("router", x, self.mixture.router, matrix, vector)
        operator, attributes = OPERATORS[self.experts.scores]
        name, shape = "probabilities", (*TOKENS, count)
        return self._op("router.probabilities", operator, logits, name=name, shape=shape, **attributes)

    def _corrected(self, scores: ir.Value) -> ir.Value:
        if self.mixture.correction is None:
            return scores
        count, name = self.experts.count, f"{self.layer.path}{self.mixture.correction}"
        vector = self.layer.builder.initializer(self.layer.weights.take(name, count), name)
        return self._op("router.correction", "Add", scores, vector, name="corrected", shape=(*TOKENS, count))

    def _among_groups(self, choice: ir.Value) -> ir.Value:
        """Minus infinity for the experts of other groups than the best ones."""
        groups, count, role = self.experts.groups, self.experts.count, "router.groups"
        if groups == 1:
            return choice
        integers, each = self.layer.builder.integers, count // groups
        apart, flat = (*TOKENS, groups, each), (*TOKENS, count)
        grouped = self._op(role, "Reshape", choice, integers(0, 0, groups, each), name="grouped", shape=apart)
        best, _ = self._top(role, grouped, BEST, "groups.best", "groups.best_of", axes=apart[:3])
        worth = self._op(role, "ReduceSum", best, integers(-1), name="groups.worth", shape=apart[:3], keepdims=0)
        top, chosen = self._top(role, worth, self.experts.active_groups, "groups.top", "groups.chosen")
        out, inside = self._filled("groups.out", worth, -np.inf), self._filled("groups.in", top, 0)
        bias = self._op(role, "ScatterElements", out, chosen, inside, name="groups.bias", shape=apart[:3], axis=-1)
        bias = self._op(role, "Unsqueeze", bias, integers(-1), name="groups.biases", shape=(*apart[:3], 1))
        biased = self._op(role, "Add", grouped, bias, name="groups.biased", shape=apart)
        return self._op(role, "Reshape", biased, integers(0, 0, count), name="choice", shape=flat)

    def _weights(self, values: ir.Value) -> ir.Value:
        """What the gates of the chosen are."""
        shape, role = (*TOKENS, self.experts.active), "router.normalized"
        if self.experts.normalized:
            axis, one = self.layer.builder.integers(-1), (*TOKENS, 1)
            total = self._op(role, "ReduceSum", values, axis, name="total", shape=one, keepdims=1)
            values = self._op(role, "Div", values, total, name="normalized", shape=shape)
        if self.experts.scale == 1:
            return values
        factor = self.layer.builder.scalar(self.experts.scale, "router.scale")
        return self._op("router.scaled", "Mul", values, factor, name="scaled", shape=shape)

    def _spread(self, scores: ir.Value, chosen: ir.Value, weights: ir.Value) -> ir.Value:
        """The gates of all experts, `[batch, sequence, experts]`."""
        role, shape = "router.gates", (*TOKENS, self.experts.count)
        sizes = self._op(role, "Shape", scores, name="sizes", shape=(3,), dtype=INT64)
        zeros = self._op(role, "ConstantOfShape", sizes, name="zeros", shape=shape)
        return self._op(role, "ScatterElements", zeros, chosen, weights, name="gates", shape=shape, axis=-1)

    def _split(self, gates: ir.Value) -> tuple[ir.Value, ...]:
        count, path = self.experts.count, f"{self.layer.path}{self.mixture.router}"
        node = ir.node("Split", [gates], {"axis": -1, "num_outputs": count}, num_outputs=count, name=f"{path}.split")
        each = [(f"{path}.gates.{number}", (*TOKENS, 1), ir.DataType.FLOAT) for number in range(count)]
        return tuple(self.layer.builder.add(node, each, role="router.gates", layer=self.layer.index))

    def _top(
        self, role: str, x: ir.Value, count: int, *names: str, axes: Sequence[int | str] = TOKENS
    ) -> tuple[ir.Value, ir.Value]:
        """The largest of the last axis, and where they are."""
        path, builder = f"{self.layer.path}{self.mixture.router}", self.layer.builder
        node = ir.node("TopK", [x, builder.integers(count)], num_outputs=2, name=f"{path}.{names[0]}")
        kinds = zip(names, (ir.DataType.FLOAT, INT64), strict=True)
        outputs = [(f"{path}.{name}", (*axes, count), kind) for name, kind in kinds]
        values, places = builder.add(node, outputs, role=role, layer=self.layer.index)
        return values, places

    def _filled(self, name: str, like: ir.Value, value: float) -> ir.Value:
        """A tensor of the same shape, of one value."""
        assert like.shape is not None
        sizes = self._op("router.groups", "Shape", like, name=f"{name}.sizes", shape=(3,), dtype=INT64)
        filling = ir.tensor(np.array([value], np.float32))
        return self._op("router.groups", "ConstantOfShape", sizes, name=name, shape=like.shape, value=filling)

    def _op(self, role: str, op_type: str, *inputs: ir.Value, name: str, **more: Any) -> ir.Value:
        return self.layer.op(role, op_type, *inputs, name=f"{self.mixture.router}.{name}", **more)
