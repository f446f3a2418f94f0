"""sdk, tasks: two evaluations of the same tasks, task by task."""

import math
from dataclasses import dataclass

from edgewise.errors import OptionError
from edgewise.tasks.metrics import Figure, resampled
from edgewise.tasks.result import Evaluation


@dataclass(frozen=True)
class Paired:
    """The first less the second: of accuracy, with the interval of a paired bootstrap, and McNemar's exact test."""

    tasks: int
    difference: Figure
    only_first: int  # tasks that the first alone solves
    only_second: int
    p_value: float  # of no difference: two-sided, of the tasks that one alone solves


def compare(first: Evaluation, second: Evaluation) -> Paired:
    """Raises OptionError where they have no task in common."""
    if first.tasks_blake3 != second.tasks_blake3:
        raise OptionError(f"{first.tasks} and {second.tasks} are not the same tasks: they cannot be compared in pairs")
    others = {(item.id, item.variant): item.right for item in second.items if item.kind != "text"}
    mine = {(item.id, item.variant): item.right for item in first.items if item.kind != "text"}
    pairs = [(right, others[key]) for key, right in mine.items() if key in others]
    if not pairs:
        raise OptionError("the two evaluations have no task with an answer in common")
    only_first, only_second = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    return Paired(
        len(pairs), resampled([a - b for a, b in pairs]), only_first, only_second, mcnemar(only_first, only_second)
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test (Psychometrika 12, 1947): each of these tasks goes either way with probability 1/2."""
    count, least = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(least + 1)) / 2**count) if count else 1.0
