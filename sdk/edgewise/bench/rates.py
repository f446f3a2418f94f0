"""sdk, bench: figures that repeat: the samples, and what is quoted of them."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """Tokens per second, in runs of so many tokens each."""

    tokens: int
    samples: tuple[float, ...]

    @property
    def runs(self) -> int:
        return len(self.samples)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def deviation(self) -> float:
        """The standard deviation of the samples; 0 for a single one."""
        return statistics.stdev(self.samples) if len(self.samples) > 1 else 0.0


@dataclass(frozen=True)
class Latency:
    """Seconds, by percentile (nearest rank)."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Latency":
        ranked = sorted(seconds)
        return cls(*(ranked[max(0, -(-len(ranked) * percent // 100) - 1)] for percent in (50, 95, 99)))
