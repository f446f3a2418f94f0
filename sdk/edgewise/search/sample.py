"""sdk, search: sampling from the model's distribution, sharpened and cut.

The cuts are applied in this order, that of transformers: temperature, top-k (arXiv 1805.04833), top-p (the nucleus,
arXiv 1904.09751), min-p (arXiv 2407.01082). Weights are probabilities up to a factor: the highest has 1.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import OptionError
from edgewise.search.protocol import FloatArray
from edgewise.search.stepwise import Stepwise

Ids = NDArray[np.intp]

COLDEST = 1e-6  # below it, float32 overflows
BLOCK = 64  # scores looked at together when the highest are searched
NUCLEUS = 1024  # tokens that a nucleus is first looked for among
STRIDE = 512  # weights that are summed as one when a place is searched


@dataclass(frozen=True, kw_only=True)
class Sample(Stepwise):
    """Draws each token at random, from the most probable ones if `top_k`, `top_p` or `min_p` say so."""

    name: ClassVar[str] = "sample"
    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0  # of the probability of the most probable token

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.temperature == 0 or COLDEST <= self.temperature < math.inf):
            raise OptionError(f"temperature is {self.temperature}; it must be 0 (greedy) or at least {COLDEST}")
        if self.top_k < 0:
            raise OptionError(f"top_k is {self.top_k}; it must be 0 (all tokens) or above")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p is {self.top_p}; it must be above 0 and at most 1 (all tokens)")
        if not 0 <= self.min_p <= 1:
            raise OptionError(f"min_p is {self.min_p}; it must be from 0 (all tokens) to 1")

    def choose(self, scores: FloatArray, rng: np.random.Generator) -> int:
        if self.temperature == 0:
            return int(scores.argmax())
        ids, weights = self.candidates(scores)
        index = draw(weights, rng)
        return index if ids is None else int(ids[index])

    def candidates(self, scores: FloatArray) -> tuple[Ids | None, FloatArray]:
        """The tokens that may be drawn (None: all) and their weights. Overwrites the scores.

        Large temporary arrays are avoided: fresh pages cost more than the arithmetic.
        """
        ids, weights = None, scores
        if 0 < self.top_k < len(scores):
            ids = highest(scores, self.top_k)
            weights = scores[ids]
        weights -= weights.max()
        with np.errstate(over="ignore"):  # a token that is banned by a very low score stays banned
            weights /= np.float32(self.temperature)
        np.exp(weights, out=weights)
        if self.top_p < 1:
            ids, weights = _only(nucleus(weights, self.top_p), ids, weights)
        if self.min_p > 0:
            ids, weights = _only(np.flatnonzero(weights >= self.min_p * weights.max()), ids, weights)
        return ids, weights


def _only(inside: Ids, ids: Ids | None, weights: FloatArray) -> tuple[Ids, FloatArray]:
    return inside if ids is None else ids[inside], weights[inside]


def highest(scores: FloatArray, count: int) -> Ids:
    """Where the `count` highest scores are, in order of place; what equals the last of them is there too."""
    if count >= len(scores):
        return np.arange(len(scores))
    columns = len(scores) // BLOCK
    if columns > count:  # at least `count` scores reach the count-th highest of the columns' maxima
        maxima = scores[: columns * BLOCK].reshape(BLOCK, columns).max(axis=0)
        near = np.flatnonzero(scores >= np.partition(maxima, -count)[-count])
    else:
        near = np.arange(len(scores))
    values = scores[near]
    found: Ids = near[values >= np.partition(values, -count)[-count]]
    return found


def nucleus(weights: FloatArray, mass: float) -> Ids:
    """The fewest of the highest weights whose share of the sum reaches `mass`; what equals the last of them too."""
    ranked = weights[highest(weights, NUCLEUS)]
    share = float(ranked.sum()) / float(weights.sum())
    if share < mass:
        ranked, share = weights, 1.0
    ranked = np.sort(ranked)[::-1]
    return np.flatnonzero(weights >= ranked[locate(ranked, mass / share, "left")])


def draw(weights: FloatArray, rng: np.random.Generator) -> int:
    """An index with a probability proportional to its weight."""
    return locate(weights, rng.random(), "right")


def locate(weights: FloatArray, share: float, side: Literal["left", "right"]) -> int:
    """Where the running sum of the weights reaches (left) or passes (right) a share of their sum."""
    if len(weights) <= STRIDE:
        return _search(np.cumsum(weights, dtype=np.float64), share, side)
    blocks = np.add.reduceat(weights, np.arange(0, len(weights), STRIDE))
    ends = np.cumsum(blocks, dtype=np.float64)
    block = _search(ends, share, side)
    rest = share * ends[-1] - (ends[block - 1] if block else 0.0)
    start = block * STRIDE
    return start + locate(weights[start : start + STRIDE], rest / float(blocks[block]), side)


def _search(ends: NDArray[np.float64], share: float, side: Literal["left", "right"]) -> int:
    """Never beyond the place where the sum is complete: what follows has no weight."""
    return int(min(ends.searchsorted(share * ends[-1], side), ends.searchsorted(ends[-1])))
