"""plugins, moe: thresholds, one a layer, that keep to a bound on the KL divergence and save most evaluations.

What a threshold costs is measured: the mean KL divergence of the model in which one layer alone skips, on a part of the
calibration text. Divergences of several layers are taken to add up. Each step raises the threshold of the layer whose
divergence then grows least for the evaluations that it saves. What is chosen is measured as a whole; where it is above
the bound, or far below it, the sum that is allowed is changed in proportion, and layers are chosen again.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ROUNDS = 5  # of measuring what is chosen
CLOSE = 0.9  # of the bound: near enough

Thresholds = dict[int, float]


@dataclass(frozen=True)
class Candidate:
    """What a layer alone does at a threshold: evaluations that a token is spared, and what they cost."""

    threshold: float
    saved: float
    loss: float


def keep_to(
    bound: float, candidates: Mapping[int, Sequence[Candidate]], measured: Callable[[Thresholds], float]
) -> tuple[Thresholds, float]:
    """The thresholds that save most, of those tried whose measured divergence keeps to the bound, and what that is."""
    best: tuple[Thresholds, float] = (dict.fromkeys(candidates, 0.0), 0.0)
    most, allowed, tried = 0.0, bound, set[tuple[float, ...]]()
    for _ in range(ROUNDS):
        chosen = choose(allowed, candidates)
        thresholds = {number: candidate.threshold for number, candidate in chosen.items()}
        if (values := tuple(thresholds.values())) in tried or not any(values):
            break
        tried.add(values)
        divergence = measured(thresholds)
        saved = sum(candidate.saved for candidate in chosen.values())
        if divergence <= bound and saved > most:
            best, most = (thresholds, divergence), saved
        if CLOSE * bound <= divergence <= bound:
            break
        allowed *= 0.95 * bound / max(divergence, bound / 4)
    return best


def choose(allowed: float, candidates: Mapping[int, Sequence[Candidate]]) -> dict[int, Candidate]:
    """Of each layer one, so that their losses add up to what is allowed at most."""
    hulls = {number: frontier(some) for number, some in candidates.items()}
    chosen, loss = {number: hull[0] for number, hull in hulls.items()}, 0.0
    queue = [(_slope(hull[0], hull[1]), number, 1) for number, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(queue)
    while queue:
        _, number, index = heapq.heappop(queue)
        hull, after = hulls[number], loss + hulls[number][index].loss - chosen[number].loss
        if after <= allowed:
            chosen[number], loss = hull[index], after
            if index + 1 < len(hull):
                heapq.heappush(queue, (_slope(hull[index], hull[index + 1]), number, index + 1))
    return chosen


def frontier(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those worth taking, from the one that saves least on: the lower convex hull of losses over what is saved."""
    hull: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: (each.saved, each.loss)):
        if hull and candidate.saved <= hull[-1].saved:
            continue
        while hull and (
            candidate.loss <= hull[-1].loss
            or (len(hull) > 1 and _slope(hull[-2], candidate) <= _slope(hull[-2], hull[-1]))
        ):
            hull.pop()
        hull.append(candidate)
    return hull


def _slope(less: Candidate, more: Candidate) -> float:
    return (more.loss - less.loss) / (more.saved - less.saved)
