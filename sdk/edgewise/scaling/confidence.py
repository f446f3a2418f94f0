"""sdk, scaling: deep think with confidence (Fu et al., arXiv 2508.15260): votes weighed by how sure their traces are.

The confidence of a token is the mean negative log-probability of the `top` most probable tokens in its place: high
where the model is sure, since all but one are then improbable. That of a group is the mean over the last `window`
tokens, and that of a trace its lowest group. The paper's groups are of 2,048 tokens; a trace that is shorter than a
group is one group.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgewise.errors import OptionError
from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Flow, Scaler
from edgewise.scaling.votes import answered, elected
from edgewise.search.stops import GO_ON, STOP, Progress, Verdict


@dataclass(frozen=True, kw_only=True)
class DeepConf(Scaler):
    """Draws `warmup` traces, then ends others as soon as a group is less sure than the best `keep` of these were.

    Votes are weighed by confidence, and traces that were ended have none. It stops once the leader has the share
    `consensus` of all weight.
    """

    name: ClassVar[str] = "deepconf"
    most: ClassVar[int | None] = 1
    extract: str | Extract = "last_number"
    warmup: int = 8
    keep: float = 0.9  # the paper's "high"; 0.1 is its "low", which saves more and errs more
    window: int = 16  # tokens of a group
    top: int = 20  # tokens of a confidence
    consensus: float = 0.95
    batch: int = 4

    def __post_init__(self) -> None:
        find_extract(self.extract)
        for name in ("warmup", "window", "top", "batch"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("keep", "consensus"):
            if not 0 < getattr(self, name) <= 1:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be above 0 and at most 1")

    def flow(self, context: Context) -> Flow:
        found = self._scored((yield Draw(count=self.warmup, options={"logprobs": self.top})))
        unsure = Unsure(float(np.quantile([each.score for each in found], 1 - self.keep)), self.window)
        options = {"logprobs": self.top, "stop": [unsure]}
        while not self._agreed(found) and (drawn := (yield Draw(count=self.batch, options=options))):
            found += self._scored(drawn)
        return _elected(found)

    def _scored(self, drawn: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Candidates with their answers, and the confidence of their least sure groups."""
        return tuple(
            replace(each, score=lowest_group([confidence(p.top) for p in each.logprobs], self.window))
            for each in answered(drawn, self.extract)
        )

    def _agreed(self, found: tuple[Candidate, ...]) -> bool:
        votes = _votes(found)
        return bool(votes) and max(votes.values()) / sum(votes.values()) >= self.consensus


@dataclass(frozen=True)
class Unsure:
    """Ends a trace whose last group is less sure than a threshold."""

    name: ClassVar[str] = "unsure"
    needs_logprobs: ClassVar[bool] = True
    threshold: float
    window: int

    def check(self, progress: Progress) -> Verdict:
        recent = progress.logprobs[-self.window :]
        if len(recent) < self.window:
            return GO_ON
        return STOP if np.mean([confidence(each.top) for each in recent]) < self.threshold else GO_ON


def confidence(top: Sequence[tuple[int, float]]) -> float:
    """Of a token, from the log-probabilities of the most probable ones in its place."""
    return -float(np.mean([logprob for _, logprob in top]))


def lowest_group(confidences: Sequence[float], window: int) -> float:
    """The least mean over `window` tokens in a row, or of all where there are fewer; 0 for none."""
    if not confidences:
        return 0.0
    sums = np.cumsum([0.0, *confidences])
    width = min(window, len(confidences))
    return float((sums[width:] - sums[:-width]).min() / width)


def _votes(found: tuple[Candidate, ...]) -> dict[str, float]:
    votes: dict[str, float] = {}
    for each in found:
        if each.answer is not None and each.finish_reason != Unsure.name:
            votes[each.answer] = votes.get(each.answer, 0.0) + each.score
    return votes


def _elected(found: tuple[Candidate, ...]) -> Choice:
    votes: Counter[str] = Counter()
    votes.update(_votes(found))
    ended = sum(each.finish_reason == Unsure.name for each in found)
    choice = elected(found, votes)
    return replace(choice, candidates=found, why=f"{choice.why}; {ended} of {len(found)} traces were ended as unsure")
