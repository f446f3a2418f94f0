"""sdk, search: top-p, the nucleus (arXiv 1904.09751): the most probable tokens that reach a share together."""

from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.draw import locate
from edgewise.search.filters.pool import Ids, Pool
from edgewise.search.filters.top_k import highest
from edgewise.search.protocol import FloatArray

NEAR = 1024  # tokens that a nucleus is first looked for among


@dataclass(frozen=True)
class TopP:
    """Keeps the fewest most probable tokens whose probabilities add up to `p`, and those that equal the last."""

    p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise OptionError(f"top_p is {self.p}; it must be above 0 and at most 1 (all tokens)")

    @property
    def active(self) -> bool:
        return self.p < 1

    def apply(self, pool: Pool) -> Pool:
        return pool.only(nucleus(pool.weights, self.p))


def nucleus(weights: FloatArray, mass: float) -> Ids:
    """The fewest of the highest weights whose share of the sum reaches `mass`; what equals the last of them too."""
    ranked = weights[highest(weights, NEAR)]
    share = float(ranked.sum()) / float(weights.sum())
    if share < mass:
        ranked, share = weights, 1.0
    ranked = np.sort(ranked)[::-1]
    return np.flatnonzero(weights >= ranked[locate(ranked, mass / share, "left")])
