"""plugins: one option for each item, so that the total loss is least within bounds on the total costs.

The multiple-choice knapsack by its efficient frontier: every item starts at its cheapest option, and the step that
lowers the loss most for its bytes is taken next, of those on the lower convex hull of their item. It is the optimum of
the relaxed problem at each step, and off by one step at most where a bound cuts it short.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One way to store an item."""

    bits: int
    bytes: int
    ms: float
    loss: float


Chosen = dict[str, Option]


def frontier(options: Sequence[Option]) -> list[Option]:
    """The options worth taking, from the cheapest on: each step costs more for less than the one before."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda option: (option.bytes, option.loss)):
        if hull and option.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and _slope(hull[-2], option) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def cheapest(items: Mapping[str, Sequence[Option]]) -> Chosen:
    return {name: frontier(options)[0] for name, options in items.items()}


def fill(
    items: Mapping[str, Sequence[Option]], fits: Callable[[Chosen], bool], enough: Callable[[Chosen], bool]
) -> Chosen:
    """Steps along the frontier, each only if what is chosen then `fits`, until it is `enough`."""
    hulls = {name: frontier(options) for name, options in items.items()}
    chosen = {name: hull[0] for name, hull in hulls.items()}
    queue = [(_slope(hull[0], hull[1]), name, 1) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(queue)
    while queue and not enough(chosen):
        _, name, index = heapq.heappop(queue)
        hull = hulls[name]
        if fits({**chosen, name: hull[index]}):
            chosen[name] = hull[index]
            if index + 1 < len(hull):
                heapq.heappush(queue, (_slope(hull[index], hull[index + 1]), name, index + 1))
    return chosen


def _slope(less: Option, more: Option) -> float:
    """The change of loss for a byte: the more negative, the better."""
    return (more.loss - less.loss) / max(1, more.bytes - less.bytes)
