"""sdk, quality: how close an encoder is to its float model: vectors by cosine and ranks, labels by shares."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ranks = NDArray[np.float64]


@dataclass(frozen=True)
class VectorLikeness:
    """Vectors of texts against those of the float model.

    `spearman` is the correlation of ranks (Spearman 1904) of the cosines of all pairs of texts: whether what is alike
    stays alike. `same_nearest`: of how many texts the nearest of the others is the same.
    """

    texts: int
    mean_cosine: float
    least_cosine: float
    pairs: int
    spearman: float
    same_nearest: float


@dataclass(frozen=True)
class LabelLikeness:
    """Probabilities of labels against those of the float model; a row is a text, or a token.

    `probability_difference` is the mean, over rows, of the largest difference of a label's probability.
    """

    texts: int
    rows: int
    # Share of rows with the same most probable label; of labels by themselves, that agree which are >= 1/2; None for
    # a regression.
    top1: float | None
    probability_difference: float
    largest_difference: float


Likeness = VectorLikeness | LabelLikeness


def of_vectors(ours: Floats, theirs: Floats) -> VectorLikeness:
    """The figures of vectors `[texts, dimensions]`; two texts at least."""
    ours, theirs = _units(ours), _units(theirs)
    own = np.einsum("td,td->t", ours, theirs)
    pairs = np.triu_indices(len(ours), 1)
    near, far = ours @ ours.T, theirs @ theirs.T
    alike = spearman(near[pairs], far[pairs])
    for cosines in (near, far):
        np.fill_diagonal(cosines, -np.inf)
    same = float((near.argmax(axis=1) == far.argmax(axis=1)).mean())
    return VectorLikeness(len(ours), float(own.mean()), float(own.min()), len(pairs[0]), alike, same)


def of_labels(ours: Sequence[Floats], theirs: Sequence[Floats], *, single: bool | None) -> LabelLikeness:
    """The figures of probabilities: for each text `[labels]` or `[tokens, labels]`.

    `single`: one label is right; None for scores that are no probabilities, of which none is.
    """
    mine, reference = (np.concatenate([np.atleast_2d(each) for each in texts]) for texts in (ours, theirs))
    differences = np.abs(mine - reference).max(axis=1)
    if single:
        agree = mine.argmax(axis=1) == reference.argmax(axis=1)
    else:
        agree = ((mine >= 0.5) == (reference >= 0.5)).all(axis=1)
    largest = float(differences.max())
    top1 = None if single is None else float(agree.mean())
    return LabelLikeness(len(ours), len(mine), top1, float(differences.mean()), largest)


def spearman(left: Floats, right: Floats) -> float:
    """The correlation of ranks; 1 where both sides have nothing to rank."""
    first, second = (ranks - ranks.mean() for ranks in (_ranks(left), _ranks(right)))
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale else 1.0


def _ranks(values: Floats) -> Ranks:
    """Of each value, from 0 on; equal ones share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Ranks = (ends - (counts + 1) / 2)[inverse]
    return means


def _units(vectors: Floats) -> Floats:
    units: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return units
