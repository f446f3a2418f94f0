"""sdk, search: XTC, exclude top choices: as llama.cpp defines it."""

from dataclasses import dataclass, replace

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.filters.pool import Pool


@dataclass(frozen=True)
class Xtc:
    """Sometimes drops the most probable tokens, where several are probable enough: all of these but the least.

    With `probability`, a token is drawn without those that reach `threshold`, except the least probable of them (and
    what equals it). That choice is not made here: the pool becomes two, so that the distribution stays a function of
    the scores.
    """

    probability: float = 0.0
    threshold: float = 0.1  # above 0.5 there can be only one such token

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise OptionError(f"xtc_probability is {self.probability}; it must be from 0 (never) to 1")
        if not 0 < self.threshold <= 0.5:
            raise OptionError(f"xtc_threshold is {self.threshold}; it must be above 0 and at most 0.5")

    @property
    def active(self) -> bool:
        return self.probability > 0

    def apply(self, pool: Pool) -> Pool | tuple[Pool, ...]:
        weights = pool.weights
        reached = weights[weights >= np.float32(self.threshold * float(weights.sum()))]
        least = reached.min(initial=np.inf)
        if not (reached > least).any():
            return pool
        without = replace(pool.where(weights <= least), share=pool.share * self.probability)
        return (without,) if self.probability == 1 else (_share(pool, 1 - self.probability), without)


def _share(pool: Pool, share: float) -> Pool:
    return replace(pool, share=pool.share * share)
