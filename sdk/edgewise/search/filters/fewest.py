"""sdk, search: the fewest tokens that reach a share of the weight together, in some order: what top-p and typical ask.

A vocabulary is not sorted: the first thousand are looked at, and failing that those in the slice where the share is
reached.
"""

import numpy as np

from edgewise.search.filters.pool import Ids, Mask
from edgewise.search.filters.top_k import highest
from edgewise.search.protocol import FloatArray

NEAR = 1024  # tokens that are looked at first
SLICES = 4096
SPAN = 64.0  # in a log-probability: what is further below the first weighs next to nothing


def fewest(ranks: FloatArray, weights: FloatArray, mass: float, *, span: float = SPAN) -> Mask:
    """Which the highest ranks are whose share of the weights reaches `mass`; what equals the last of them too.

    Ranks are sliced evenly down to `span` below the highest.
    """
    near = highest(ranks, NEAR)
    target = mass * float(weights.sum())
    if float(weights[near].sum()) < target and len(near) < len(ranks):
        near, target = _slice(ranks, weights, mass, span)
    near = near[np.argsort(-ranks[near])]
    ends = np.cumsum(weights[near], dtype=np.float64)
    last = near[min(int(ends.searchsorted(target)), len(near) - 1)]
    kept: Mask = ranks >= ranks[last]
    return kept


def _slice(ranks: FloatArray, weights: FloatArray, mass: float, span: float) -> tuple[Ids, float]:
    """The slice of ranks in which the share is reached, and the weight that is wanted of it."""
    depths = ranks.max() - ranks
    np.minimum(depths, np.float32(span), out=depths)
    depths *= np.float32((SLICES - 1) / max(float(depths.max()), 1e-30))
    slices = depths.astype(np.intp)
    ends = np.cumsum(np.bincount(slices, weights, SLICES))
    target = mass * float(ends[-1])
    place = int(ends.searchsorted(target))
    return np.flatnonzero(slices == place), target - (float(ends[place - 1]) if place else 0.0)
