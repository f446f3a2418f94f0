"""plugins: one option for each item, so that the total loss is least within bounds on the total costs.

The multiple-choice knapsack by its efficient frontier: every item starts at its cheapest option, and the step that
lowers the loss most for its cost is taken next, of those on the lower convex hull of their item. A cost is what is
bounded: bytes, or milliseconds; where both are, the sum of the shares that an option takes of each. It is the optimum
of the relaxed problem at each step, and off by one step at most where a bound cuts it short. What is left of the bounds
then is used up by exchanges: one item gives, another one takes, as long as the loss falls.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Option:
    """One way to store an item."""

    bits: int
    bytes: int
    ms: float
    loss: float


Chosen = dict[str, Option]
Cost = Callable[[Option], float]


def by_bytes(option: Option) -> float:
    return option.bytes


def frontier(options: Sequence[Option], cost: Cost = by_bytes) -> list[Option]:
    """The options worth taking, from the cheapest on: each step costs more for less than the one before."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda option: (cost(option), option.loss)):
        if hull and option.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and _slope(hull[-2], option, cost) <= _slope(hull[-2], hull[-1], cost):
            hull.pop()
        hull.append(option)
    return hull


def cheapest(items: Mapping[str, Sequence[Option]], cost: Cost = by_bytes) -> Chosen:
    return {name: frontier(options, cost)[0] for name, options in items.items()}


def fill(
    items: Mapping[str, Sequence[Option]],
    fits: Callable[[Chosen], bool],
    enough: Callable[[Chosen], bool],
    cost: Cost = by_bytes,
) -> Chosen:
    """Steps along the frontier, each only if what is chosen then `fits`, until it is `enough`."""
    hulls = {name: frontier(options, cost) for name, options in items.items()}
    chosen = {name: hull[0] for name, hull in hulls.items()}
    queue = [(_slope(hull[0], hull[1], cost), name, 1) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(queue)
    while queue and not enough(chosen):
        _, name, index = heapq.heappop(queue)
        hull = hulls[name]
        if fits({**chosen, name: hull[index]}):
            chosen[name] = hull[index]
            if index + 1 < len(hull):
                heapq.heappush(queue, (_slope(hull[index], hull[index + 1], cost), name, index + 1))
    return chosen


def exchange(items: Mapping[str, Sequence[Option]], chosen: Chosen, fits: Callable[[Chosen], bool]) -> Chosen:
    """What is chosen with one item, or two at a time, at other options, while that lowers the loss and `fits`."""
    while better := _better(items, chosen, fits):
        chosen = better
    return chosen


def _better(items: Mapping[str, Sequence[Option]], chosen: Chosen, fits: Callable[[Chosen], bool]) -> Chosen | None:
    """The change of two items at most that lowers the loss most; None where there is none."""
    moves = [
        (option.loss - chosen[name].loss, name, option)
        for name, options in items.items()
        for option in options
        if option != chosen[name]
    ]
    pairs = (pair for pair in itertools.combinations(moves, 2) if pair[0][1] != pair[1][1])
    changes = [(sum(move[0] for move in change), change) for change in (*((move,) for move in moves), *pairs)]
    for _, change in sorted((change for change in changes if change[0] < 0), key=lambda change: change[0]):
        changed = {**chosen, **{name: option for _, name, option in change}}
        if fits(changed) and _loss(changed) < _loss(chosen):  # which rounding could make the same
            return changed
    return None


def _loss(chosen: Chosen) -> float:
    return sum(option.loss for option in chosen.values())


def _slope(less: Option, more: Option, cost: Cost) -> float:
    """The change of loss for what it costs: the more negative, the better."""
    added = cost(more) - cost(less)
    return (more.loss - less.loss) / added if added > 0 else -inf
