"""plugins, prune: what reads a residual stream that has lost channels, and what adds to it, fitted anew.

What reads the stream saw x, and sees x' now. By least squares x is B x', with means over the text

    B = (mean of x x'ᵀ + d S) (mean of x' x'ᵀ + d I)⁻¹        S: each channel that is left stays what it is

and every matrix W that read x becomes W B; where the lm_head is the embedding, the one before it (see `head`). `o` and
`down` are fitted to what the channels left should be after them (`eliminate.refit`). All goes from layer to layer, so
that later ones make up for what earlier ones lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.calibration.gram import add_gram, mirror, product
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear, layer, linears
from edgewise.tensors import Streamed, constant
from edgewise_plugins.prune.eliminate import refit
from edgewise_plugins.prune.head import onto
from edgewise_plugins.prune.observed import moments, values_by_token
from edgewise_plugins.prune.parts import put
from edgewise_plugins.prune.stream import Stream, read_together, scale_gains
from edgewise_plugins.rotate import TURN

FITTED = {"attention.o", "mlp.down"}  # a token's experts are not: each of them gives a part of what is wanted


@dataclass
class Refitted:
    """A model whose stream was cut, walked beside the one that it was cut from.

    left: the channels that it has of those of the other. whole: the other's matrices.
    """

    model: ir.Model
    stream: Stream
    left: np.ndarray
    whole: dict[str, Streamed]
    damping: float

    @classmethod
    def of(cls, model: ir.Model, before: ir.Model, stream: Stream, left: np.ndarray, *, damping: float) -> "Refitted":
        return cls(model, stream, left, {linear.name: linear.matrix for linear in linears(before)}, damping)

    def scale(self, along: Walk, number: int | None) -> None:
        """Multiply the gains of a layer's norms, or of the final one, by sqrt(s) (see `stream`)."""
        norms = [norm for norm in self.stream.norms if layer(norm) == number]
        names = [str(norm.inputs[0].name) for norm in norms if norm.inputs[0]]
        shares = np.zeros(len(norms))
        for entering in values_by_token(along, along.position, names):
            shares += [_shares(x, self.left).sum() for x in entering]
        for norm, share in zip(norms, shares / along.sequences.size, strict=True):
            scale_gains(norm, np.sqrt(share))

    def fit(self, walk: Walk, along: Walk, number: int | None) -> None:
        """Fit the matrices of a layer, or the lm_head, in the order of computation."""
        order = {node: place for place, node in enumerate(self.model.graph)}
        writers = [linear for linear in self.stream.writers if linear.role in FITTED]
        groups = [*read_together(self.stream.readers), *([linear] for linear in writers)]
        for group in sorted(groups, key=lambda group: order[group[0].node]):
            if group[0].layer != number:
                continue
            if group[0].role in FITTED:
                self._fit_writer(walk, along, group[0])
            elif group[0].name != self.stream.embedding.name:
                self._fit_readers(walk, along, group)

    def _fit_readers(self, walk: Walk, along: Walk, group: Sequence[Linear]) -> None:
        second, cross = _moments(walk, along, group[0])
        added = self.damping * (float(second.diagonal().mean()) or 1.0)
        second[np.diag_indices_from(second)] += added
        cross[self.left, np.arange(len(self.left))] += added
        told = np.linalg.solve(second, cross.T).T.astype(np.float32)  # B
        for linear in group:
            fitted = _times(self.whole[linear.name], told)
            if linear.role == TURN:
                table = self.whole[self.stream.embedding.name]
                fitted = constant((onto(table, self.left, damping=self.damping) @ fitted.numpy()).astype(np.float32))
            linear.replace(fitted)

    def _fit_writer(self, walk: Walk, along: Walk, linear: Linear) -> None:
        assert linear.layer is not None
        found = moments(walk, along, linear.layer, linear, self.left)
        inputs = np.arange(len(found.gram))
        fitted = refit(found, inputs[:, None], inputs, damping=self.damping)
        put(self.model, linear, fitted.weights, fitted.bias)


def _moments(walk: Walk, along: Walk, linear: Linear) -> tuple[np.ndarray, np.ndarray]:
    """Of what enters a matrix, float64: the mean of x' x'ᵀ, `[channels left, same]`, and of x x'ᵀ, `[all, left]`."""
    names = [str(linear.node.inputs[0].name)]  # type: ignore[union-attr]
    second = np.zeros((walk.facts.hidden_size,) * 2, np.float32)
    cross = np.zeros((along.facts.hidden_size, walk.facts.hidden_size), np.float32)
    pairs = zip(values_by_token(walk, walk.position, names), values_by_token(along, along.position, names), strict=True)
    for (ours,), (theirs,) in pairs:
        add_gram(second, ours)
        cross += product(np.ascontiguousarray(theirs), np.ascontiguousarray(ours))
    mirror(second)
    tokens = walk.sequences.size
    return second.astype(np.float64) / tokens, cross.astype(np.float64) / tokens


def _shares(x: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Of each row, the share of its squares that some columns hold; 1 of zeros."""
    squares = np.square(x, dtype=np.float64)
    rest = np.delete(squares, left, axis=1).sum(axis=1)
    whole = squares[:, left].sum(axis=1) + rest
    return np.asarray(1 - rest / np.where(whole, whole, 1))


def _times(matrix: Streamed, factor: np.ndarray) -> Streamed:
    """A matrix times a factor `[columns, fewer]`."""
    rows, name = matrix.dims[0], matrix.name
    return Streamed(
        (rows, factor.shape[1]), matrix.dtype, lambda a, b: np.asarray(matrix.read(a, b) @ factor), name=name
    )
