"""sdk, scaling: chain-of-thought decoding (Wang and Zhou, arXiv 2402.10200): other first tokens, greedy after them.

No prompt asks for steps: where a path happens to reason, the model is surer of its answer. How sure is the margin:
the mean, over the tokens of the answer alone, of the probability of the token less that of the runner-up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from edgewise.errors import OptionError
from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Flow, Scaler
from edgewise.search.protocol import LogProb

FIRST = {"search": "greedy", "max_tokens": 1}
PATH = {"search": "greedy", "logprobs": 2}


@dataclass(frozen=True, kw_only=True)
class CotDecoding(Scaler):
    """Takes the most probable first tokens, one path for each, and the answer with the greatest margin.

    With `aggregate`, margins are summed over paths with the same answer, as the paper does where it is best.
    """

    name: ClassVar[str] = "cot-decoding"
    most: ClassVar[int | None] = 1
    extract: str | Extract = "last_number"
    paths: int = 10
    aggregate: bool = True

    def __post_init__(self) -> None:
        find_extract(self.extract)
        if self.paths < 2:
            raise OptionError(f"paths is {self.paths}; it must be 2 or more, to have something to choose from")

    def flow(self, context: Context) -> Flow:
        first = yield Draw(options=FIRST | {"logprobs": self.paths}, sample=False)
        found: tuple[Candidate, ...] = ()
        for start in _starts(first[0]):
            drawn = yield Draw(after=start, options=PATH)
            found += tuple(self._scored(each, context.spell(each)) for each in drawn)
        if not found:
            return Choice(first[0], first, "the budget was spent on the first token")
        return self._chosen(found)

    def _scored(self, path: Candidate, pieces: Sequence[str]) -> Candidate:
        """A path with its answer, and the margin of that."""
        extract = find_extract(self.extract)
        answer = extract(path.text)
        if answer is None:
            return replace(path, score=0.0)
        return replace(path, answer=answer, score=margin(path.logprobs, answer_span(pieces, extract, answer)))

    def _chosen(self, found: tuple[Candidate, ...]) -> Choice:
        votes: dict[str, float] = {}
        for each in found:
            if each.answer is not None:
                before = votes.get(each.answer, 0.0)
                votes[each.answer] = before + each.score if self.aggregate else max(before, each.score)
        if not votes:
            return Choice(found[0], found, f"none of {len(found)} paths came to an answer: the most probable of them")
        answer = max(votes, key=lambda each: votes[each])
        best = max((each for each in found if each.answer == answer), key=lambda each: each.score)
        return Choice(best, found, f"margin {votes[answer]:.3f}, the most of {len(found)} paths")


def _starts(first: Candidate) -> list[Candidate]:
    """The most probable first tokens, best first, as what paths go on from."""
    top = first.logprobs[0].top if first.logprobs else ()
    return [Candidate(text="", tokens=(token,), logprobs=(LogProb(token, each, top),)) for token, each in top]


def answer_span(pieces: Sequence[str], extract: Extract, answer: str) -> range:
    """The shortest run of tokens in whose text the answer is found: the one that ends, and then begins, last."""
    ends = (end for end in range(len(pieces), 0, -1) if extract("".join(pieces[:end])) != answer)
    end = min(next(ends, 0) + 1, len(pieces))
    starts = (start for start in range(end) if extract("".join(pieces[start:end])) != answer)
    return range(max(0, next(starts, end) - 1), end)


def margin(logprobs: Sequence[LogProb], span: range) -> float:
    """The mean over a span of the probability of each token less that of the most probable other one."""
    gaps = [math.exp(p.logprob) - max((math.exp(q) for t, q in p.top if t != p.token), default=0.0) for p in logprobs]
    return sum(gaps[i] for i in span) / len(span)
