"""plugins, prune: which channels, or directions, of the residual stream the matrices that read it can do without.

All matrices W that read the stream see one x each, with the mean C of x xᵀ over the text. What they give is missed by

    sum over all W of  tr(W (C - C_left) Wᵀ) / tr(W C Wᵀ)

when x is what can be told of it by fewer channels. With one mean C for all that read the stream, and the sum M of
Wᵀ W / tr(W C Wᵀ), that is the loss of a matrix F with Fᵀ F = M, which `eliminate` makes small, channel by channel.
SliceGPT (arXiv 2401.15024, equation 7) takes the directions in which x varies most instead: eigenvectors of C.
"""

from dataclasses import dataclass

import numpy as np

from edgewise.calibration.gram import add_gram, mirror
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear
from edgewise.tensors import streamed
from edgewise_plugins.absorb import only_gain
from edgewise_plugins.prune.eliminate import Moments, eliminate
from edgewise_plugins.prune.observed import values_by_token
from edgewise_plugins.prune.stream import read_together


@dataclass
class Directions:
    """What reads a stream of a width, and what it sees there.

    second_moment: C, `[width, width]`; metric: M, the same shape.
    """

    second_moment: np.ndarray
    metric: np.ndarray

    @classmethod
    def of(cls, walk: Walk, readers: list[Linear]) -> "Directions":
        """Of a walk from its first layer on, which it goes through."""
        width = walk.facts.hidden_size
        found = cls(np.zeros((width, width)), np.zeros((width, width)))
        groups = list(read_together(readers))
        for layer in walk.layers:
            for group in (group for group in groups if group[0].layer == layer):
                found._add(walk, layer, group)
            walk.advance(layer)
        for group in (group for group in groups if group[0].layer is None):
            found._add(walk, walk.head, group)
        found.second_moment /= len(groups)
        return found

    def channels(self, keep: int, *, damping: float) -> np.ndarray:
        """Those that are left, in ascending order."""
        sizes, vectors = np.linalg.eigh(self.metric)
        weights = np.sqrt(np.maximum(sizes, 0))[:, None] * vectors.T
        nothing = np.zeros(len(sizes))
        moments = Moments(weights, self.second_moment, weights @ self.second_moment, nothing, nothing)
        return eliminate(moments, np.arange(len(sizes))[:, None], keep, damping=damping).units

    def principal(self) -> np.ndarray:
        """An orthogonal matrix, float32 `[width, width]`: columns are directions, that of most variation first."""
        vectors = np.linalg.eigh(self.second_moment)[1][:, ::-1]
        return np.ascontiguousarray(vectors, dtype=np.float32)

    def _add(self, walk: Walk, layer: int, group: list[Linear]) -> None:
        """What matrices that share an input see, before the gains of its norm."""
        second_moment, gains = _seen(walk, layer, group[0])
        self.second_moment += second_moment
        for linear in group:
            own = np.zeros_like(second_moment)
            for rows in linear.matrix.walk():
                add_gram(own, rows.astype(np.float32) * gains)
            mirror(own)
            self.metric += own / (np.vdot(own, second_moment) or 1.0)


def _seen(walk: Walk, layer: int, linear: Linear) -> tuple[np.ndarray, np.ndarray]:
    """C of one input, and the gains that it is multiplied by."""
    value = linear.node.inputs[0]
    assert value is not None
    norm, width = value.producer(), walk.facts.hidden_size
    total, gains = np.zeros((width, width), np.float32), np.ones(width, np.float32)
    if norm is not None and norm.op_type == "RMSNormalization":
        gains = streamed(only_gain(norm).const_value).numpy().astype(np.float32)
    for (x,) in values_by_token(walk, layer, [str(value.name)]):
        add_gram(total, x)
    mirror(total)
    safe = np.where(gains, gains, 1)
    return total / walk.sequences.size / np.outer(safe, safe), gains
