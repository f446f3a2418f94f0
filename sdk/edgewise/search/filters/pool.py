"""sdk, search: what filters work on: tokens that may still be drawn, and how probable each is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgewise.search.protocol import FloatArray

Ids = NDArray[np.intp]

NOTHING = -104.0  # the exponential of it, and of less, is 0 in float32


@dataclass(eq=False, slots=True)
class Pool:
    """Tokens that may be drawn. Nothing is computed before it is needed: a filter that only ranks needs no weights."""

    scores: FloatArray  # [tokens], before the temperature; -inf where a token cannot be drawn
    ids: Ids | None = None  # [tokens]; None: token i is at place i
    temperature: float = 1.0  # scores are divided by it
    share: float = 1.0  # how probable it is that a token is drawn from this pool, not from another
    _logs: FloatArray | None = field(default=None, repr=False)
    _weights: FloatArray | None = field(default=None, repr=False)

    @property
    def logs(self) -> FloatArray:
        """Scores at the temperature, moved so that the highest is 0. Not to be written to."""
        if self._logs is None:
            self._logs = self.scores - self.scores.max()
            if self.temperature != 1:
                with np.errstate(over="ignore"):  # a token that is banned by a very low score stays banned
                    self._logs /= np.float32(self.temperature)
        return self._logs

    @property
    def weights(self) -> FloatArray:
        """Probabilities up to a factor: the highest has 1. Not to be written to."""
        if self._weights is None:
            self._weights = np.exp(self.logs)
        return self._weights

    def mean_log(self) -> float:
        """What `logs` is on average, by weight: the entropy is less than the log of the sum of weights by as much."""
        return float((self.weights * np.maximum(self.logs, NOTHING)).sum()) / float(self.weights.sum())

    def entropy(self) -> float:
        """In nats."""
        return float(np.log(self.weights.sum())) - self.mean_log()

    def heated(self, temperature: float) -> "Pool":
        """The same tokens at a temperature, on top of what they have."""
        return Pool(self.scores, self.ids, self.temperature * temperature, self.share)

    def only(self, places: Ids) -> "Pool":
        """The tokens at these places."""
        ids = places if self.ids is None else self.ids[places]
        logs = None if self._logs is None else self._logs[places]
        weights = None if self._weights is None else self._weights[places]
        return Pool(self.scores[places], ids, self.temperature, self.share, logs, weights)

    def without(self, places: Ids) -> "Pool":
        """All but the tokens at these places, which stay and cannot be drawn."""
        scores = self.scores.copy()
        scores[places] = -np.inf
        return Pool(scores, self.ids, self.temperature, self.share)


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


def _mixed(pools: Iterable[Pool]) -> tuple[Ids | None, FloatArray]:
    """One distribution that is drawn from as often as each pool has a share."""
    pools = tuple(pools)
    shares = [pool.weights * np.float32(pool.share / float(pool.weights.sum())) for pool in pools]
    known = [pool.ids for pool in pools if pool.ids is not None]
    ids = np.unique(np.concatenate(known)) if len(known) == len(pools) else None
    size = max(len(pool.scores) for pool in pools) if ids is None else len(ids)
    weights = np.zeros(size, np.float32)
    for pool, share in zip(pools, shares, strict=True):
        if pool.ids is None:
            weights += share
        else:
            weights[pool.ids if ids is None else np.searchsorted(ids, pool.ids)] += share
    return ids, weights
