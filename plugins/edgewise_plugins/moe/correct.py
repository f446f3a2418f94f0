"""plugins, moe: a router that chooses as the one before did, where experts are fewer and their input has drifted.

For experts left, each of which stands for a group of those before, with l the logits of the router before, on the
inputs that it saw

    t = log sum of exp(l) over the group
    W = (mean of (t - b) xᵀ + d W₀) H⁻¹         H = mean of x xᵀ + d I

with x what the router sees now, and b its bias, if it has one: the closest logits by least squares. With one expert a
group this is the choice of before, among those left. Softmax knows differences only: for it the mean over the experts
is taken from t, b and W₀. d keeps W₀, the rows that the router has, where the text does not tell.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.routing import by_token
from edgewise.calibration.walk import Walk
from edgewise.graph import Roles, get_facts
from edgewise.tensors import constant
from edgewise_plugins.moe.groups import Groups
from edgewise_plugins.moe.mixtures import routers

DAMPING = 0.01  # of the mean of the diagonal of H


def correct_routers(model: ir.Model, before: ir.Model, groups: Mapping[int, Groups], calibration: Calibration) -> None:
    """Fit the routers of a model whose experts stand for groups of those of `before`, layer after layer."""
    with calibration.walk(model) as walk, calibration.walk(before) as along:
        along.progress = None
        for number in walk.layers:
            if number in groups:
                routers(model)[number].replace(constant(_fitted(walk, along, number, groups[number])))
            along.advance(number)
            walk.advance(number)


def _fitted(walk: Walk, along: Walk, number: int, groups: Groups) -> np.ndarray:
    """The rows of a layer's router, `[experts, hidden]`."""
    router, mixture = routers(walk.model)[number], get_facts(walk.model).experts[number]
    assert mixture is not None
    softmax, bias = mixture.scores == "softmax", _bias(Roles.of(walk.model), number)
    weights = router.matrix.numpy().astype(np.float64)
    gram, cross = np.zeros((weights.shape[1],) * 2), np.zeros(weights.shape)
    entering, logits = _name(router.node.inputs[0]), _name(_logits(Roles.of(along.model), number).outputs[0])
    for x, others in zip(walk.values(number, [entering]), along.values(number, [logits]), strict=True):
        inputs = by_token(x[entering]).astype(np.float64)
        gram += inputs.T @ inputs
        cross += wanted(by_token(others[logits]), groups, bias, softmax=softmax).T @ inputs
    damping = DAMPING * (float(gram.diagonal().mean()) or 1.0)
    gram[np.diag_indices_from(gram)] += damping
    kept = weights - weights.mean(axis=0) if softmax else weights
    found: np.ndarray = np.linalg.solve(gram, (cross + damping * kept).T).T
    return found.astype(np.float32, order="C")


def wanted(logits: np.ndarray, groups: Groups, bias: np.ndarray | float = 0.0, *, softmax: bool = True) -> np.ndarray:
    """t - b, `[tokens, groups]`, of the logits of all experts `[tokens, experts]`."""
    exact = logits.astype(np.float64)
    found: np.ndarray = np.stack([np.logaddexp.reduce(exact[:, members], axis=1) for members in groups], axis=1) - bias
    return found - found.mean(axis=1, keepdims=True) if softmax else found


def _logits(roles: Roles, number: int) -> ir.Node:
    return roles.maybe("router.bias", number) or roles.one("router", number)


def _bias(roles: Roles, number: int) -> np.ndarray | float:
    add = roles.maybe("router.bias", number)
    for value in add.inputs if add else ():
        if value is not None and value.const_value is not None:
            return value.const_value.numpy().astype(np.float64)
    return 0.0


def _name(value: ir.Value | None) -> str:
    assert value is not None
    return str(value.name)
