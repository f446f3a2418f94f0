"""sdk, search: locally typical sampling (arXiv 2202.00666), as transformers computes it."""

from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.draw import locate
from edgewise.search.filters.pool import Ids, Pool
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
        nearness = -np.abs(pool.logs - np.float32(pool.mean_log()))
        return pool.only(first_to(nearness, pool.weights, self.p))


def first_to(ranks: FloatArray, weights: FloatArray, mass: float) -> Ids:
    """The fewest of the highest ranks whose weights reach a share of the sum; what equals the last of them too."""
    near = highest(ranks, NEAR)
    share = float(weights[near].sum()) / float(weights.sum())
    if share < mass:
        near, share = np.arange(len(ranks)), 1.0
    ranked = near[np.argsort(-ranks[near], kind="stable")]
    return np.flatnonzero(ranks >= ranks[ranked[locate(weights[ranked], mass / share, "left")]])
