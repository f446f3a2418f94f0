"""sdk, tasks: thresholds of a cascade, from what each of its models answers alone, and how sure it was.

A cascade answers nothing that its models do not: its accuracy and its cost at any threshold follow from theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.bench.speed import Progress
from edgewise.errors import OptionError
from edgewise.scaling.cascade import Ask
from edgewise.tasks.evaluate import evaluate_tasks
from edgewise.tasks.method import Method
from edgewise.tasks.result import Evaluation, Item

SEED = 0  # of samples


@dataclass(frozen=True, kw_only=True)
class Rule:
    """By what an answer is deferred: a verifier, by its name with options, and the samples that it is given."""

    verifier: Mapping[str, Any]
    samples: int = 1

    def step(self, model: int, models: int) -> Ask:
        """What a cascade of so many asks this model; the last one's answer stands, whatever its score."""
        return (
            Ask(model=model) if model == models - 1 else Ask(model=model, verifier=self.verifier, samples=self.samples)
        )


@dataclass(frozen=True)
class Place:
    """A point of the curves: what a cascade with these thresholds does, of the tasks that it was calibrated on."""

    thresholds: tuple[float, ...]  # of each model but the last
    deferred: float  # share of the tasks that go beyond the first model
    accuracy: float
    tokens: float  # of a task, on average, of all models that were asked
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is wanted of a cascade: to defer so many tasks at most, or to be as accurate; or neither."""

    share: float | None = None
    quality: float | None = None

    def __post_init__(self) -> None:
        if self.share is not None and self.quality is not None:
            raise OptionError("a share and a quality are wanted; give one of them")
        for name, value in (("share", self.share), ("quality", self.quality)):
            if value is not None and not 0 <= value <= 1:
                raise OptionError(f"the {name} is {value}; it must be from 0 to 1")

    def reached(self, places: Sequence[Place]) -> Place | None:
        """The place that defers most within the share, or takes least for the quality. Raises OptionError for none."""
        if self.share is not None:
            share = self.share
            return max((each for each in places if each.deferred <= share), key=lambda each: each.deferred)
        return None if self.quality is None else self._accurate(places, self.quality)

    def _accurate(self, places: Sequence[Place], quality: float) -> Place:
        good = [each for each in places if each.accuracy >= quality]
        if not good:
            best = max(places, key=lambda each: each.accuracy)
            raise OptionError(
                f"no threshold reaches an accuracy of {quality:.1%} on these tasks: the best is {best.accuracy:.1%}, "
                f"where {best.deferred:.0%} are deferred"
            )
        return min(good, key=lambda each: (each.seconds, each.deferred))


def each_alone(
    bundles: Sequence[str],
    tasks: Path,
    rule: Rule,
    *,
    extract: str = "whole",
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Each bundle's answers to all tasks with what the rule says of them, one after the other, as a cascade asks.

    Samples are those of one seed. Raises OptionError where there are fewer than two bundles.
    """
    if len(bundles) < 2:
        raise OptionError(f"a cascade has two models or more, and {len(bundles)} was given")
    methods = [
        Method(extract=extract, options={"seed": SEED, **(options or {})}, scaler=step, budget=str(step.samples))
        for step in (rule.step(model, len(bundles)) for model in range(len(bundles)))
    ]
    return [
        evaluate_tasks(bundles[0], tasks, method=method, assistants=bundles[1:], progress=progress)
        for method in methods
    ]


def curve(evaluations: Sequence[Evaluation]) -> list[Place]:
    """From never deferring to always: thresholds are the same quantile of each model's scores.

    Raises OptionError where they did not answer the same tasks.
    """
    answers = _answers(evaluations)
    sure = np.sort([[item.score for item in row] for row in answers[:-1]], axis=1)
    above = np.nextafter(sure[:, -1:], np.inf)  # all are deferred
    found = [_place(tuple(map(float, column)), answers) for column in np.concatenate([sure, above], axis=1).T]
    return [place for i, place in enumerate(found) if not i or place.thresholds != found[i - 1].thresholds]


def alone(evaluations: Sequence[Evaluation]) -> list[Place]:
    """What each model does by itself, of the same tasks."""
    return [_place((), [items]) for items in _answers(evaluations)]


def cheapest(places: Sequence[Place]) -> list[Place]:
    """Those of the curve of accuracy against cost that no other one beats, from the cheapest on."""
    found: list[Place] = []
    for place in sorted(places, key=lambda each: (each.seconds, -each.accuracy)):
        if not found or place.accuracy > found[-1].accuracy:
            found.append(place)
    return found


def _answers(evaluations: Sequence[Evaluation]) -> list[list[Item]]:
    """Of each model, its answers in the order of the first one's."""
    first = evaluations[0]
    if any(each.tasks_blake3 != first.tasks_blake3 for each in evaluations):
        raise OptionError("the models of a cascade are calibrated on the same tasks")
    tables = [{item.id: item for item in each.items if item.score is not None} for each in evaluations]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    if not names:
        raise OptionError(f"{first.tasks} has no tasks with an answer, which a cascade is calibrated on")
    return [[table[name] for name in names] for table in tables]


def _place(thresholds: tuple[float, ...], answers: Sequence[Sequence[Item]]) -> Place:
    right = tokens = seconds = deferred = 0.0
    for row in zip(*answers, strict=True):
        answered = next((i for i, t in enumerate(thresholds) if (row[i].score or 0.0) >= t), len(thresholds))
        right += row[answered].right
        tokens += sum(item.tokens for item in row[: answered + 1])
        seconds += sum(item.seconds for item in row[: answered + 1])
        deferred += answered > 0
    count = len(answers[0])
    return Place(thresholds, deferred / count, right / count, tokens / count, seconds / count)
