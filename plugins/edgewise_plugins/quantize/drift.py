"""plugins, quantize: what the matrices before have lost is made up for (QEP, arXiv 2504.09629).

A matrix W of a model that is quantized up to it sees inputs x, where the float model has others, and what it computes
should be what the float model has there, y. By least squares, for means over the text, that takes other weights

    W + (mean of (y - W x) xᵀ) H⁻¹        H = mean of x xᵀ, damped

of which half the way is gone: the text is not all there is. Where a product is added to the residual stream, y is what
makes the stream the float model's, with all that went astray before. Elsewhere y is the float product.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.calibration.gram import product
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear, role
from edgewise_plugins.quantize.factor import Factor

STRENGTH = np.float32(0.5)


@dataclass(frozen=True)
class Drift:
    """Of a group of matrices that share an input, how far it leads from the float model, and what makes up for it.

    change: float32 `[columns, columns]`, to be multiplied by the weights; of a matrix that adds to the residual stream
    `[rows, columns]`, to be added to them.
    """

    change: np.ndarray
    to_stream: bool

    def made_up_for(self, weights: np.ndarray, start: int) -> np.ndarray:
        """Weights `[rows, columns]`, those of a matrix from `start` on, as they are to be in its place."""
        change = self.change[start : start + len(weights)] if self.to_stream else weights @ self.change
        return np.asarray(weights + STRENGTH * change)


def drift(cross: np.ndarray, factor: Factor, *, to_stream: bool) -> Drift:
    """From the mean of (float - ours) xᵀ, of inputs or of the stream, `[features, columns]`."""
    return Drift(factor.solve(cross), to_stream)


def stream_of(group: Sequence[Linear]) -> ir.Value | None:
    """The residual stream that the only matrix of a group adds to; None where there are several, or none is."""
    return stream_after(group[0]) if len(group) == 1 else None


def stream_after(linear: Linear) -> ir.Value | None:
    """The residual stream after a product and its bias are added to it, where they are added as they are."""
    value = linear.node.outputs[0]
    while len(consumers := list(value.consumers())) == 1:
        (node,), value = consumers, consumers[0].outputs[0]
        if node.op_type == "Add" and str(role(node)).endswith(".residual"):
            return value
        if role(node) != f"{linear.role}.bias":
            break
    return None


def in_step(walk: Walk, floats: Walk, layer: int, group: Sequence[Linear]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What enters matrices of a layer, and how far that, or the stream they add to, is from the float model's.

    Both come as `[tokens, features]`, chunk by chunk.
    """
    value, stream = group[0].node.inputs[0], stream_of(group)
    assert value is not None
    entering, watch = str(value.name), str((stream or value).name)
    if watch == f"hidden.{layer + 1}" and floats.position == layer:
        floats.advance(layer)
    theirs = floats.values(floats.position, [watch])
    for ours, other in zip(walk.values(layer, list(dict.fromkeys([entering, watch]))), theirs, strict=True):
        yield _by_token(ours[entering]), _by_token(other[watch] - ours[watch])


def add_cross(total: np.ndarray | None, difference: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A sum of (float - ours) xᵀ, `[features, columns]`, with some tokens more."""
    some = product(np.ascontiguousarray(difference), np.ascontiguousarray(x))
    return some if total is None else np.add(total, some, out=total)


def _by_token(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])
