"""sdk, search: what filters work on: tokens that may still be drawn, and how probable each is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgewise.search.protocol import FloatArray

Ids = NDArray[np.intp]
Mask = NDArray[np.bool_]

NOTHING = -104.0  # the exponential of it, and of less, is 0 in float32
FEW = 8  # one of so many: then what is kept is copied


@dataclass(eq=False, slots=True)
class Pool:
    """Tokens that may be drawn. Nothing is computed before it is needed: a filter that only ranks needs no weights.

    Large arrays are few: fresh pages cost more than the arithmetic.
    """

    _scores: FloatArray
    ids: Ids | None = None  # [tokens]; None: token i is at place i
    temperature: float = 1.0  # scores are divided by it
    share: float = 1.0  # how probable it is that a token is drawn from this pool, not from another
    _weights: FloatArray | None = None
    _kept: Mask | None = None  # what is left of the scores, where that has not been written into them

    @property
    def scores(self) -> FloatArray:
        """`[tokens]`, before the temperature; -inf where a token cannot be drawn. Not to be written to."""
        if self._kept is not None:
            self._scores = np.minimum(self._scores, np.array([-np.inf, np.inf], np.float32)[self._kept.view(np.uint8)])
            self._kept = None
        return self._scores

    @property
    def weights(self) -> FloatArray:
        """Probabilities up to a factor. Not to be written to."""
        if self._weights is None:
            self._weights = self.logs()
            np.exp(self._weights, out=self._weights)
        return self._weights

    def logs(self) -> FloatArray:
        """Scores at the temperature, moved so that the highest is 0: a new array."""
        logs: FloatArray = self.scores - self.scores.max()
        if self.temperature != 1:
            with np.errstate(over="ignore"):  # a token that is banned by a very low score stays banned
                logs /= np.float32(self.temperature)
        return logs

    def mean(self, logs: FloatArray) -> float:
        """Of `logs`, by weight."""
        products = np.maximum(logs, NOTHING)
        products *= self.weights
        return float(products.sum()) / float(self.weights.sum())

    def entropy(self) -> float:
        """In nats."""
        total = float(self.weights.sum()) / float(self.weights.max())
        return math.log(total) - self.mean(self.logs())

    def heated(self, temperature: float) -> "Pool":
        """The same tokens at a temperature, on top of what they have."""
        return Pool(self.scores, self.ids, self.temperature * temperature, self.share)

    def only(self, places: Ids) -> "Pool":
        """The tokens at these places."""
        ids = places if self.ids is None else self.ids[places]
        weights = None if self._weights is None else self._weights[places]
        return Pool(self.scores[places], ids, self.temperature, self.share, weights)

    def where(self, kept: Mask) -> "Pool":
        """The tokens that are kept; where these are many, the others stay in their places and cannot be drawn."""
        count = np.count_nonzero(kept)
        if count * FEW < len(kept):
            return self.only(np.flatnonzero(kept))
        if count == len(kept):
            return self
        weights = self.weights * kept
        return Pool(self.scores, self.ids, self.temperature, self.share, weights, kept)


class Filter(Protocol):
    """One way to cut or reshape a distribution: a value, made of its options, which it checks."""

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        ...

    def apply(self, pool: Pool) -> Pool | tuple[Pool, ...]:
        """The pool that a token is drawn from; or several, whose shares add up to what the pool's was."""
        ...


def filtered(scores: FloatArray, filters: Sequence[Filter]) -> tuple[Ids | None, FloatArray]:
    """The tokens that may be drawn after these filters (None: all) and their weights."""
    pools: tuple[Pool, ...] = (Pool(scores),)
    for each in filters:
        pools = tuple(left for pool in pools for left in _several(each.apply(pool)))
    return (pools[0].ids, pools[0].weights) if len(pools) == 1 else _mixed(pools)


def _several(pools: Pool | tuple[Pool, ...]) -> tuple[Pool, ...]:
    return pools if isinstance(pools, tuple) else (pools,)


def _mixed(pools: tuple[Pool, ...]) -> tuple[Ids | None, FloatArray]:
    """One distribution, to which each pool adds its share."""
    known = [pool.ids for pool in pools if pool.ids is not None]
    ids = np.unique(np.concatenate(known)) if len(known) == len(pools) else None
    size = max(len(pool.weights) for pool in pools) if ids is None else len(ids)
    mixed = np.zeros(size, np.float32)
    for pool in pools:
        weights = pool.weights
        weights *= np.float32(pool.share / float(weights.sum()))
        if pool.ids is None:
            mixed += weights
        else:
            mixed[pool.ids if ids is None else np.searchsorted(ids, pool.ids)] += weights
    return ids, mixed
