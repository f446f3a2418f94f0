"""sdk, search: what filters work on: tokens that may still be drawn, and how probable each is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgewise.search.protocol import FloatArray

Ids = NDArray[np.intp]

NOTHING = -104.0  # the exponential of it, and of less, is 0 in float32


@dataclass(eq=False, slots=True)
class Pool:
    """Tokens that may be drawn. Nothing is computed before it is needed: a filter that only ranks needs no weights.

    Large arrays are few: fresh pages cost more than the arithmetic.
    """

    scores: FloatArray  # [tokens], before the temperature; -inf where a token cannot be drawn
    ids: Ids | None = None  # [tokens]; None: token i is at place i
    temperature: float = 1.0  # scores are divided by it
    share: float = 1.0  # how probable it is that a token is drawn from this pool, not from another
    _weights: FloatArray | None = field(default=None, repr=False)

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

    def entropy(self) -> float:
        """In nats."""
        logs = self.logs()
        weights = np.exp(logs)
        return math.log(weights.sum()) - mean(logs, weights)

    def heated(self, temperature: float) -> "Pool":
        """The same tokens at a temperature, on top of what they have."""
        return Pool(self.scores, self.ids, self.temperature * temperature, self.share)

    def only(self, places: Ids) -> "Pool":
        """The tokens at these places."""
        if len(places) == len(self.scores):
            return self
        ids = places if self.ids is None else self.ids[places]
        weights = None if self._weights is None else self._weights[places]
        return Pool(self.scores[places], ids, self.temperature, self.share, weights)

    def without(self, places: Ids) -> "Pool":
        """All but the tokens at these places, which stay and cannot be drawn."""
        scores, weights = self.scores.copy(), self.weights.copy()
        scores[places], weights[places] = -np.inf, 0
        return Pool(scores, self.ids, self.temperature, self.share, weights)


def mean(logs: FloatArray, weights: FloatArray) -> float:
    """Of the logs, by weight; what has no weight may be -inf."""
    products = np.maximum(logs, NOTHING)
    products *= weights
    return float(products.sum()) / float(weights.sum())


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
    size = max(len(pool.scores) for pool in pools) if ids is None else len(ids)
    mixed = np.zeros(size, np.float32)
    for pool in pools:
        weights = pool.weights
        weights *= np.float32(pool.share / float(weights.sum()))
        if pool.ids is None:
            mixed += weights
        else:
            mixed[pool.ids if ids is None else np.searchsorted(ids, pool.ids)] += weights
    return ids, mixed
