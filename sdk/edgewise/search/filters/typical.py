"""sdk, search: locally typical sampling (arXiv 2202.00666), as transformers computes it."""

from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.draw import locate
from edgewise.search.filters.pool import Ids, Pool, mean
from edgewise.search.filters.top_k import highest
from edgewise.search.protocol import FloatArray

NEAR = 1024  # tokens that the typical ones are first looked for among


@dataclass(frozen=True)
class Typical:
    """Keeps the fewest tokens that reach `p` together, those first whose surprise is nearest to the entropy.

    The most probable token is not kept where it is too probable to be typical.
    """

    p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise OptionError(f"typical_p is {self.p}; it must be above 0 and at most 1 (all tokens)")

    @property
    def active(self) -> bool:
        return self.p < 1

    def apply(self, pool: Pool) -> Pool:
        logs = pool.logs()
        weights = np.exp(logs)
        logs -= np.float32(mean(logs, weights))  # an entropy less a surprise
        return pool.only(nearest(np.abs(logs, out=logs), weights, self.p))


def nearest(distances: FloatArray, weights: FloatArray, mass: float) -> Ids:
    """The fewest at the smallest distances whose share of the weights reaches `mass`; what equals the last too."""
    near = highest(-distances, NEAR)
    share = float(weights[near].sum()) / float(weights.sum())
    if share >= mass:
        radius = _radius(distances[near], weights[near], mass / share)
    else:
        radius = _radius(distances, weights, mass)
    return np.flatnonzero(distances <= radius)


def _radius(distances: FloatArray, weights: FloatArray, mass: float) -> FloatArray:
    """How far the last of them is. Both are sorted as one number: the bits of what is positive rank as it does."""
    pairs = distances.view(np.uint32).astype(np.uint64)
    pairs <<= np.uint64(32)
    pairs |= weights.view(np.uint32)
    pairs.sort()
    place = locate(pairs.astype(np.uint32).view(np.float32), mass, "left")
    return (pairs[place : place + 1] >> np.uint64(32)).astype(np.uint32).view(np.float32)
