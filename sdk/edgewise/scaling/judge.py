"""sdk, scaling: verifiers that ask: another bundle with a rubric, or the other candidates."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.asking import Asking
from edgewise.scaling.protocol import Candidate, Context
from edgewise.scaling.verifier import Judging, Verdict, Verifier

RUBRIC = "Question:\n{prompt}\n\nAnswer:\n{text}\n\nIs the answer right? Yes or No:"


@dataclass(frozen=True, kw_only=True)
class Judge(Asking):
    """Asks a bundle whether an answer is right: the probability of `yes`, of that and `no` together.

    The bundle is `model` 1 unless another is named; 0 is the one that answers. What is neither word leaves 0.5.
    The answer is accepted where the score is `least` or more.
    """

    name: ClassVar[str] = "judge"
    template: ClassVar[str] = "rubric"
    top: ClassVar[int] = 20
    unread: ClassVar[float] = 0.5

    rubric: str = RUBRIC
    yes: str = "Yes"
    no: str = "No"

    def score(self, following: list[tuple[str, float]]) -> float:
        yes, no = (sum(math.exp(p) for text, p in following if _is(text, word)) for word in (self.yes, self.no))
        return yes / (yes + no) if yes + no else 0.5


@dataclass(frozen=True, kw_only=True)
class Votes(Verifier):
    """The share of those that are judged together which give the same answer."""

    name: ClassVar[str] = "votes"
    extract: str | Extract = "last_number"

    def __post_init__(self) -> None:
        find_extract(self.extract)

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        answers = [find_extract(self.extract)(each.text) for each in candidates]
        votes = Counter(answers)
        return tuple(Verdict(votes[each] / len(answers) if each is not None else 0.0) for each in answers)
        yield


def _is(text: str, word: str) -> bool:
    """Whether a token begins the word, or is it: words may take several."""
    begun = text.casefold()
    return bool(begun) and word.casefold().startswith(begun)
