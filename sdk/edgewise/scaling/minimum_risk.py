"""sdk, scaling: minimum Bayes risk (Eikema and Aziz, arXiv 2108.04718): the sample that agrees most with the others."""

from dataclasses import dataclass, replace
from typing import ClassVar

from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Flow, Scaler
from edgewise.scaling.votes import BATCH
from edgewise.search.utilities import Utility, expected, find_utility


@dataclass(frozen=True, kw_only=True)
class MinimumRisk(Scaler):
    """Samples until the budget is spent, and takes the text that is best on average, should each of them be right.

    `utility` says how good a text is if another one is right: "chrf", "exact" (a vote of texts), "token_f1", or in
    Python any function of the two. Its average is the score.
    """

    name: ClassVar[str] = "mbr"
    most: ClassVar[int | None] = 1
    utility: str | Utility = "chrf"

    def __post_init__(self) -> None:
        find_utility(self.utility)

    def flow(self, context: Context) -> Flow:
        found: tuple[Candidate, ...] = ()
        while drawn := (yield Draw(count=BATCH)):
            found += drawn
        scores = expected([each.text for each in found], find_utility(self.utility))
        scored = tuple(replace(each, score=score) for each, score in zip(found, scores, strict=True))
        best = max(scored, key=lambda each: each.score)
        return Choice(best, scored, f"expected utility {best.score:.4g}, the most of {len(scored)}")
