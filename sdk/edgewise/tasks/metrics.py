"""sdk, tasks: figures of quality, each by its definition, with the interval that so few tasks leave."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000
BINS = 10


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval; none where there are too few tasks for one."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int = 0  # of tasks


def proportion(right: Sequence[float]) -> Figure:
    """The mean of what is right, with Wilson's interval (JASA 22, 1927): from 0 to 1, also where all are right."""
    count = len(right)
    mean = sum(right) / count
    z = 1.959963984540054  # of 95 %
    middle = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count))
    return Figure(mean, max(0.0, middle - half), min(1.0, middle + half), count)


def share(right: Sequence[float]) -> Figure:
    """The mean of what is right, or of shares of samples that are: of these, Wilson's interval does not hold."""
    return proportion(right) if set(right) <= {0.0, 1.0} else resampled(right)


def resampled(
    values: Sequence[float], statistic: Callable[[NDArray[np.float64]], float] = lambda x: float(x.mean())
) -> Figure:
    """A statistic of values, with the interval of a bootstrap by percentiles (Efron 1979)."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return Figure(statistic(array), count=len(array))
    rng = np.random.default_rng(0)
    draws = [statistic(array[rng.integers(0, len(array), len(array))]) for _ in range(RESAMPLES)]
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Figure(statistic(array), float(low), float(high), len(array))


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that one of `k` of these samples passes, without bias (Chen et al., arXiv 2107.03374, equation 1)."""
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def calibration_error(confidences: Sequence[float], right: Sequence[float]) -> float:
    """Expected calibration error (Guo et al., arXiv 1706.04599): how far confidence is from accuracy, over 10 bins."""
    sure, true = np.asarray(confidences), np.asarray(right, np.float64)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return float(sum(abs(sure[bins == b].sum() - true[bins == b].sum()) for b in range(BINS)) / len(sure))


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words by all of them (Li et al., arXiv 1510.03055); 0 for none."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str, n: int = 4) -> float:
    """The share of n-grams of words that came before in the same text (Welleck et al., arXiv 1908.04319)."""
    grams = _grams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return list(zip(*(words[i:] for i in range(n)), strict=False))
