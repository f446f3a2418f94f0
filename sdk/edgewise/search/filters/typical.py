"""sdk, search: locally typical sampling (arXiv 2202.00666), as transformers computes it."""

from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.filters.fewest import fewest
from edgewise.search.filters.pool import Pool


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
        logs -= np.float32(pool.mean(logs))  # an entropy less a surprise
        np.negative(np.abs(logs, out=logs), out=logs)
        return pool.where(fewest(logs, pool.weights, self.p))
