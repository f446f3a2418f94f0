"""plugins, moe: a router that chooses as the one before did, where experts are fewer and their input has drifted.

For experts left, each of which stands for a group of those before, with l the logits of the router before, on the
inputs that it saw

    t = log sum of exp(l) over the group, minus the mean of that over the groups        (softmax knows differences only)
    W = (mean of t xᵀ + d W₀) H⁻¹         H = mean of x xᵀ + d I

with x what the router sees now: the closest logits by least squares. With one expert a group, this is the softmax of
before, restricted to those left. d keeps W₀, the rows that it has, where the text does not tell.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.routing import by_token
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear
from edgewise.tensors import constant
from edgewise_plugins.moe.groups import Groups
from edgewise_plugins.moe.mixtures import routers

DAMPING = 0.01  # of the mean of the diagonal of H


def correct_routers(model: ir.Model, before: ir.Model, groups: Mapping[int, Groups], calibration: Calibration) -> None:
    """Fit the routers of a model whose experts stand for groups of those of `before`, layer after layer."""
    ours, theirs = routers(model), routers(before)
    with calibration.walk(model) as walk, calibration.walk(before) as along:
        along.progress = None
        for number in walk.layers:
            if number in groups:
                ours[number].replace(constant(fitted(walk, along, ours[number], theirs[number], groups[number])))
            along.advance(number)
            walk.advance(number)


def fitted(walk: Walk, along: Walk, ours: Linear, theirs: Linear, groups: Groups) -> np.ndarray:
    """The rows of a router, `[experts, hidden]`."""
    assert ours.layer is not None
    weights = ours.matrix.numpy().astype(np.float64)
    gram, cross = np.zeros((weights.shape[1],) * 2), np.zeros(weights.shape)
    entering, logits = _name(ours.node.inputs[0]), _name(theirs.node.outputs[0])
    for x, others in zip(walk.values(ours.layer, [entering]), along.values(ours.layer, [logits]), strict=True):
        inputs = by_token(x[entering]).astype(np.float64)
        gram += inputs.T @ inputs
        cross += wanted(by_token(others[logits]), groups).T @ inputs
    damping = DAMPING * (float(gram.diagonal().mean()) or 1.0)
    gram[np.diag_indices_from(gram)] += damping
    centred = weights - weights.mean(axis=0)
    found: np.ndarray = np.linalg.solve(gram, (cross + damping * centred).T).T
    return found.astype(np.float32, order="C")


def wanted(logits: np.ndarray, groups: Groups) -> np.ndarray:
    """`[tokens, groups]`, of the logits of all experts `[tokens, experts]`; each token's have the mean 0."""
    exact = logits.astype(np.float64)
    found = np.stack([np.logaddexp.reduce(exact[:, members], axis=1) for members in groups], axis=1)
    centred: np.ndarray = found - found.mean(axis=1, keepdims=True)
    return centred


def _name(value: ir.Value | None) -> str:
    assert value is not None
    return str(value.name)
