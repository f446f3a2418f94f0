"""sdk, search: top-n-sigma (arXiv 2411.07641): tokens within n standard deviations of the highest score."""

import math
from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.filters.pool import Pool
from edgewise.search.processors import BANNED


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
        if scores.min() < BANNED:
            scores = scores[scores >= BANNED]
        lowest = float(scores.max()) - self.n * float(scores.std(dtype=np.float64))
        return pool.where(pool.scores >= np.float32(lowest))
