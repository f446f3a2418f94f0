"""sdk, search: cut-offs at a probability: min-p (arXiv 2407.01082), epsilon and eta (arXiv 2210.15191).

The most probable token is always kept.
"""

import math
from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.filters.pool import Pool


@dataclass(frozen=True)
class MinP:
    """Keeps tokens that are at least `p` times as probable as the most probable one."""

    p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise OptionError(f"min_p is {self.p}; it must be from 0 (all tokens) to 1")

    @property
    def active(self) -> bool:
        return self.p > 0

    def apply(self, pool: Pool) -> Pool:
        lowest = pool.scores.max() + np.float32(pool.temperature * math.log(self.p))
        return pool.where(pool.scores >= lowest)


@dataclass(frozen=True)
class Epsilon:
    """Keeps tokens with a probability of at least `epsilon`."""

    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 1:
            raise OptionError(f"epsilon_cutoff is {self.epsilon}; it must be from 0 (all tokens) to below 1")

    @property
    def active(self) -> bool:
        return self.epsilon > 0

    def apply(self, pool: Pool) -> Pool:
        return _at_least(pool, self.epsilon)


@dataclass(frozen=True)
class Eta:
    """Keeps tokens above a probability that falls with the entropy: min(epsilon, sqrt(epsilon) * exp(-entropy))."""

    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 1:
            raise OptionError(f"eta_cutoff is {self.epsilon}; it must be from 0 (all tokens) to below 1")

    @property
    def active(self) -> bool:
        return self.epsilon > 0

    def apply(self, pool: Pool) -> Pool:
        return _at_least(pool, min(self.epsilon, math.sqrt(self.epsilon) * math.exp(-pool.entropy())))


def _at_least(pool: Pool, probability: float) -> Pool:
    lowest = min(pool.weights.max(), np.float32(probability * float(pool.weights.sum())))
    return pool.where(pool.weights >= lowest)
