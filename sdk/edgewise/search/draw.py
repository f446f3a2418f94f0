"""sdk, search: drawing from weights, and finding where a running sum of many of them reaches a share."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgewise.search.protocol import FloatArray

STRIDE = 512  # weights that are summed as one when a place is searched


def draw(weights: FloatArray, rng: np.random.Generator) -> int:
    """An index with a probability proportional to its weight."""
    return locate(weights, rng.random(), "right")


def locate(weights: FloatArray, share: float, side: Literal["left", "right"]) -> int:
    """Where the running sum of the weights reaches (left) or passes (right) a share of their sum."""
    if len(weights) <= STRIDE:
        return _search(np.cumsum(weights, dtype=np.float64), share, side)
    blocks = np.add.reduceat(weights, np.arange(0, len(weights), STRIDE))
    ends = np.cumsum(blocks, dtype=np.float64)
    block = _search(ends, share, side)
    rest = share * ends[-1] - (ends[block - 1] if block else 0.0)
    start = block * STRIDE
    return start + locate(weights[start : start + STRIDE], rest / float(blocks[block]), side)


def _search(ends: NDArray[np.float64], share: float, side: Literal["left", "right"]) -> int:
    """Never beyond the place where the sum is complete: what follows has no weight."""
    return int(min(ends.searchsorted(share * ends[-1], side), ends.searchsorted(ends[-1])))
