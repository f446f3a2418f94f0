"""sdk, search: top-k (arXiv 1805.04833): the k most probable tokens."""

from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.filters.pool import Ids, Pool
from edgewise.search.protocol import FloatArray

BLOCK = 64  # scores looked at together when the highest are searched


@dataclass(frozen=True)
class TopK:
    """Keeps the `k` most probable tokens, and those that equal the last of them."""

    k: int = 0  # 0: all

    def __post_init__(self) -> None:
        if self.k < 0:
            raise OptionError(f"top_k is {self.k}; it must be 0 (all tokens) or above")

    @property
    def active(self) -> bool:
        return self.k > 0

    def apply(self, pool: Pool) -> Pool:
        return pool if self.k >= len(pool.scores) else pool.only(highest(pool.scores, self.k))


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
