"""sdk, tasks: thresholds of a cascade, from what each of its models answers alone, and how sure it was.

A cascade answers nothing that its models do not: its accuracy and its cost at any threshold follow from theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.tasks.result import Evaluation, Item


@dataclass(frozen=True)
class Place:
    """A point of the curves: what a cascade with these thresholds does, of the tasks that it was calibrated on."""

    thresholds: tuple[float, ...]  # of each model but the last
    deferred: float  # share of the tasks that go beyond the first model
    accuracy: float
    tokens: float  # of a task, on average, of all models that were asked
    seconds: float


def curve(evaluations: Sequence[Evaluation]) -> list[Place]:
    """From never deferring to always: thresholds are the same quantile of each model's confidences.

    Raises OptionError where there are fewer than two models, or where they did not answer the same tasks.
    """
    if len(evaluations) < 2:
        raise OptionError(f"a cascade has two models or more, and {len(evaluations)} was given")
    answers = _answers(evaluations)
    sure = np.sort([[item.confidence for item in row] for row in answers[:-1]], axis=1)
    above = np.nextafter(sure[:, -1:], np.inf)  # all are deferred
    found = [_place(tuple(map(float, column)), answers) for column in np.concatenate([sure, above], axis=1).T]
    return [place for i, place in enumerate(found) if not i or place.thresholds != found[i - 1].thresholds]


def with_share(places: Sequence[Place], share: float) -> Place:
    """The one that defers most, of those that defer no more than a share."""
    if not 0 <= share <= 1:
        raise OptionError(f"the share is {share}; it must be from 0 to 1")
    return max((place for place in places if place.deferred <= share), key=lambda place: place.deferred)


def with_quality(places: Sequence[Place], accuracy: float) -> Place:
    """The one that takes least, of those that are as accurate. Raises OptionError where none is."""
    good = [place for place in places if place.accuracy >= accuracy]
    if not good:
        best = max(places, key=lambda place: place.accuracy)
        raise OptionError(
            f"no threshold reaches an accuracy of {accuracy:.1%} on these tasks: the best is {best.accuracy:.1%}, "
            f"where {best.deferred:.0%} are deferred"
        )
    return min(good, key=lambda place: (place.seconds, place.deferred))


def _answers(evaluations: Sequence[Evaluation]) -> list[list[Item]]:
    """Of each model, its answers in the order of the first one's."""
    first = evaluations[0]
    if any(each.tasks_blake3 != first.tasks_blake3 for each in evaluations):
        raise OptionError("the models of a cascade are calibrated on the same tasks")
    tables = [
        {item.id: item for item in each.items if item.confidence is not None and item.kind != "choices"}
        for each in evaluations
    ]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    if not names:
        raise OptionError(f"{first.tasks} has no tasks with an answer, which a cascade is calibrated on")
    return [[table[name] for name in names] for table in tables]


def _place(thresholds: tuple[float, ...], answers: Sequence[Sequence[Item]]) -> Place:
    right = tokens = seconds = deferred = 0.0
    for row in zip(*answers, strict=True):
        answered = next((i for i, t in enumerate(thresholds) if (row[i].confidence or 0.0) >= t), len(thresholds))
        right += row[answered].right
        tokens += sum(item.tokens for item in row[: answered + 1])
        seconds += sum(item.seconds for item in row[: answered + 1])
        deferred += answered > 0
    count = len(answers[0])
    return Place(thresholds, deferred / count, right / count, tokens / count, seconds / count)
