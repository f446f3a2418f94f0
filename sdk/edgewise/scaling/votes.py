"""sdk, scaling: self-consistency (Wang et al., arXiv 2203.11171): the answer that most samples come to."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import cycle
from typing import ClassVar

from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Flow, Scaler

BATCH = 16  # samples that are drawn together


@dataclass(frozen=True, kw_only=True)
class SelfConsistency(Scaler):
    """Samples until the budget is spent, and counts answers; of equal counts the one that came first.

    Several models are asked in turn: an ensemble of their outputs.
    """

    name: ClassVar[str] = "self-consistency"
    extract: str | Extract = "last_number"

    def __post_init__(self) -> None:
        find_extract(self.extract)

    def flow(self, context: Context) -> Flow:
        found: tuple[Candidate, ...] = ()
        for model in cycle(range(context.models)):
            drawn = yield Draw(count=max(1, BATCH // context.models), model=model)
            if not drawn:
                break
            found += answered(drawn, self.extract)
        return elected(found, counted(found))


def counted(candidates: Iterable[Candidate]) -> Counter[str]:
    """Votes by answer; who came to none has none."""
    return Counter(each.answer for each in candidates if each.answer is not None)


def answered(candidates: Iterable[Candidate], extract: str | Extract) -> tuple[Candidate, ...]:
    """Candidates with what their texts say."""
    find = find_extract(extract)
    return tuple(replace(each, answer=find(each.text)) for each in candidates)


def elected(candidates: tuple[Candidate, ...], votes: Counter[str]) -> Choice:
    """The first candidate with the answer that has most votes; scores are the shares of their answers."""
    total = votes.total()
    if not total:
        what = "was scored above 0" if votes else "came to an answer"
        return Choice(candidates[0], candidates, f"none of {len(candidates)} {what}: the first of them")
    scored = tuple(replace(each, score=votes[each.answer] / total if each.answer else 0.0) for each in candidates)
    best = max(scored, key=lambda each: each.score)
    return Choice(best, scored, f"{votes[str(best.answer)]:.4g} of {total:.4g} votes")
