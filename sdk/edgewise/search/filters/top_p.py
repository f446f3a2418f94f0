"""sdk, search: top-p, the nucleus (arXiv 1904.09751): the most probable tokens that reach a share together."""

from dataclasses import dataclass

from edgewise.errors import OptionError
from edgewise.search.filters.fewest import SPAN, fewest
from edgewise.search.filters.pool import Pool


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
        return pool.where(fewest(pool.scores, pool.weights, self.p, span=SPAN * pool.temperature))
