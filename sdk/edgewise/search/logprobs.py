"""sdk, search: log-probabilities from the model's own scores."""

import math

import numpy as np
from numpy.typing import NDArray

from edgewise.search.filters.top_k import highest
from edgewise.search.protocol import FloatArray, LogProb


def logprob(scores: FloatArray, token: int, top: int = 0) -> LogProb:
    """How probable a token is by these scores, `[vocabulary]`, in nats; and the `top` most probable ones.

    Scores of -inf have the log-probability -inf; at least one score must be finite. Nothing is written to.
    """
    total = log_sum_exp(scores)
    best = ((int(each), float(scores[each]) - total) for each in most_probable(scores, top))
    return LogProb(token, float(scores[token]) - total, tuple(best))


def log_sum_exp(scores: FloatArray) -> float:
    """log(sum(exp(scores))): float32 terms (pairwise sums, an error of about 1e-7), whatever their size."""
    highest = scores.max()
    return float(highest) + math.log(float(np.exp(scores - highest).sum()))


def most_probable(scores: FloatArray, count: int) -> NDArray[np.intp]:
    """The `count` highest scores, best first; of equal ones the lower token comes first."""
    if count < 1:
        return np.empty(0, np.intp)
    near = highest(scores, count)
    return near[np.argsort(-scores[near], kind="stable")[:count]]
