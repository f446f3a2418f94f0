"""plugins, moe: routers whose gates make up, as far as they can, for experts that are gone: least squares on a text.

With x what a router sees, l its logits, g the gates of the experts chosen, f(x) what these give, y the sum of g f,
and r what is missing for the layer to give what the checkpoint's layer gives: a change of a logit changes y by

    v_e = g_e (f_e - y)      of softmax; of sigmoids p it is g_e (1 - p_e) f_e, less y where they are normalized

The row of each expert is changed so that its logit comes closest to what makes up for r, over its tokens,

    w_e += (mean of (v_e . r) xᵀ) (mean of |v_e|² x xᵀ + d I)⁻¹ / k

divided by the experts active, k, as they all make up for the same r. Tokens keep the experts that they had, but for
those between two. Later layers see what the earlier ones have become: what they have lost is in r.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.routing import by_token
from edgewise.calibration.walk import Walk
from edgewise.facts import Experts
from edgewise.graph import Linear, Roles
from edgewise.tensors import constant
from edgewise_plugins.moe.mixtures import mixtures, routers

DAMPING = 0.01  # of the mean of the diagonal
LEAST = 1e-12  # for an expert that no token is given to


@dataclass(frozen=True)
class Seen:
    """Some tokens in a mixture: what enters it, gates and scores `[tokens, experts]`, what experts give, and r."""

    x: np.ndarray
    gates: np.ndarray
    scores: np.ndarray
    outputs: Sequence[np.ndarray]
    missing: np.ndarray

    def slopes(self, mixture: Experts) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each expert the tokens given to it, and v, `[its tokens, hidden]`."""
        y = np.zeros_like(self.missing)
        for gates, output in zip(self.gates.T, self.outputs, strict=True):
            y += gates[:, None] * output
        sigmoid = mixture.scores == "sigmoid"
        for gates, scores, output in zip(self.gates.T, self.scores.T, self.outputs, strict=True):
            own = np.flatnonzero(gates)
            factor = gates[own] * (1 - scores[own]) if sigmoid else gates[own]
            alone = sigmoid and not mixture.normalized
            around = output[own] if alone else output[own] - y[own] / mixture.scale
            yield own, factor[:, None] * around


def correct_routers(model: ir.Model, before: ir.Model, calibration: Calibration) -> None:
    """Change the routers of a model towards what `before` gives, layer after layer."""
    found = mixtures(model)
    with calibration.walk(model) as walk, calibration.walk(before) as along:
        along.progress = None
        for number in walk.layers:
            if number in found:
                router = routers(model)[number]
                router.replace(constant(_corrected(walk, along, router, found[number])))
            along.advance(number)
            walk.advance(number)


def _corrected(walk: Walk, along: Walk, router: Linear, mixture: Experts) -> np.ndarray:
    """The rows of a layer's router, `[experts, hidden]`."""
    weights = router.matrix.numpy().astype(np.float64)
    hidden = weights.shape[1]
    gram, cross = np.zeros((mixture.count, hidden, hidden)), np.zeros(weights.shape)
    for seen in _chunks(walk, along, router):
        for expert, (own, v) in enumerate(seen.slopes(mixture)):
            inputs = seen.x[own].astype(np.float64)
            gram[expert] += (inputs * np.square(v).sum(axis=1)[:, None]).T @ inputs
            cross[expert] += (v * seen.missing[own]).sum(axis=1) @ inputs
    for expert in range(mixture.count):
        damped = gram[expert] + (DAMPING * gram[expert].trace() / hidden + LEAST) * np.eye(hidden)
        weights[expert] += np.linalg.solve(damped, cross[expert]) / mixture.active
    return weights.astype(np.float32)


def _chunks(walk: Walk, along: Walk, router: Linear) -> Iterator[Seen]:
    assert router.layer is not None
    routing, roles, x = walk.routing[router.layer], Roles.of(walk.model), router.node.inputs[0]
    assert x is not None
    entering, scores = str(x.name), str(roles.one("router.probabilities", router.layer).outputs[0].name)
    leaving = _leaving(roles, router.layer)
    ours = walk.values(router.layer, list(dict.fromkeys([entering, scores, *routing.names, leaving])))
    for values, theirs in zip(ours, along.values(router.layer, [leaving]), strict=True):
        own = {name: by_token(value) for name, value in values.items()}
        outputs = [own[name] for name in routing.outputs]
        missing = by_token(theirs[leaving]) - own[leaving]
        yield Seen(own[entering], own[routing.gates], own[scores], outputs, missing)


def _leaving(roles: Roles, number: int) -> str:
    """What the mixture of a layer adds to: the residual stream, or where a norm comes between, itself."""
    if roles.maybe("mlp.post_norm", number):
        return str((roles.maybe("shared.sum", number) or roles.one("expert.sum", number)).outputs[0].name)
    return f"hidden.{number + 1}"
