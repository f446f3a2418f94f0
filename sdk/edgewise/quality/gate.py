"""sdk, quality: a gate: what a bundle must reach on its quality text; the `[gate]` table of a recipe."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewise.errors import OptionError
from edgewise.options import check, record

if TYPE_CHECKING:
    from edgewise.quality.report import Distance


@dataclass(frozen=True)
class Gate:
    """Limits for a bundle's distance from its float model; a build that exceeds one of them fails.

    [gate]
    max_mean_kld = 0.03   # nats per token
    max_p99_kld = 0.3
    min_top1 = 0.9        # share of positions with the same most likely token
    max_perplexity_ratio = 1.05
    """

    max_mean_kld: float | None = None
    max_p99_kld: float | None = None
    min_top1: float | None = None
    max_perplexity_ratio: float | None = None

    def __post_init__(self) -> None:
        check(self)
        limits = record(self)
        for key, limit in limits.items():
            if not 0 <= limit < math.inf:
                raise OptionError(f"{key} is {limit}; it must be 0 or above")
        if not limits:
            raise OptionError("it sets no limit; for example: max_mean_kld = 0.03")
        if self.min_top1 is not None and self.min_top1 > 1:
            raise OptionError(f"min_top1 is {self.min_top1:g}; it is a share, from 0 to 1")

    def failures(self, found: "Distance") -> list[str]:
        """What is not good enough, as one would say it; nothing where all of it is."""
        return [
            f"{name} is {value:.4g}, and {limit:g} is the {'least' if least else 'most'} that the gate allows"
            for name, value, limit, least in (
                ("mean KL divergence", found.mean_kld, self.max_mean_kld, False),
                ("p99 of the KL divergence", found.p99_kld, self.max_p99_kld, False),
                ("top-1 agreement", found.top1, self.min_top1, True),
                ("perplexity ratio", found.perplexity_ratio, self.max_perplexity_ratio, False),
            )
            if limit is not None and (value < limit if least else value > limit)
        ]
