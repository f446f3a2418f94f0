"""sdk, search: top-n-sigma (arXiv 2411.07641): tokens within n standard deviations of the highest score."""

import math
from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.filters.pool import Pool


@dataclass(frozen=True)
class TopNSigma:
    """Keeps tokens whose score is at most `n` standard deviations below the highest; the temperature changes nothing.

    The deviation is that of all scores in the pool, so filters before this one narrow it.
    """

    n: float = 0.0  # 0: all

    def __post_init__(self) -> None:
        if not 0 <= self.n < math.inf:
            raise OptionError(f"top_n_sigma is {self.n}; it must be 0 (all tokens) or above")

    @property
    def active(self) -> bool:
        return self.n > 0

    def apply(self, pool: Pool) -> Pool:
        scores = pool.scores
        if scores.min() == -np.inf:
            scores = scores[scores > -np.inf]
        lowest = scores.max() - np.float32(self.n) * scores.std()
        return pool.only(np.flatnonzero(pool.scores >= lowest))
