"""sdk, search: the sequences of a beam search: open ones, each on a row, and the best of those that are complete."""

import math
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from edgewise.search.protocol import Context, Extend, LogProb, Request, Sequence


@dataclass(slots=True)
class Hypothesis:
    """A sequence that may go on."""

    row: int  # where it is scored; of its parent, until it has one of its own
    state: Any  # of the processors
    tokens: tuple[int, ...] = ()
    total: float = 0.0  # the sum of its tokens' scores
    logprobs: tuple[LogProb, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What complete sequences are ranked by, and when no open one is worth going on with."""

    length_penalty: float
    early_stopping: bool | Literal["never"]
    limit: int  # new tokens at most

    def score(self, total: float, length: int) -> float:
        """Of a complete sequence; the token that ended it counts."""
        return total / math.pow(length, self.length_penalty)

    def hope(self, total: float, length: int) -> float:
        """What an open sequence is taken to reach: an estimate, as scores may rise with the length."""
        rises = self.early_stopping == "never" and self.length_penalty > 0
        return self.score(total, self.limit if rises else length)


class Completed:
    """The `size` best complete sequences, best first."""

    def __init__(self, size: int, ranking: Ranking) -> None:
        self.best: list[tuple[float, Sequence]] = []
        self._size = size
        self._ranking = ranking

    def add(self, hypothesis: Hypothesis, reason: str) -> None:
        """Rank one; of equal scores the earlier is the better one. A token that means the end is left out."""
        score = self._ranking.score(hypothesis.total, len(hypothesis.tokens))
        kept = len(hypothesis.tokens) - (reason == "eos")
        sequence = Sequence(hypothesis.tokens[:kept], score, hypothesis.logprobs[:kept], reason)
        self.best = sorted([*self.best, (score, sequence)], key=lambda pair: -pair[0])[: self._size]

    def settled(self, hypotheses: Listed[Hypothesis]) -> bool:
        """Whether it is over, with these (best first) still open."""
        if not hypotheses:
            return True
        if len(self.best) < self._size:
            return False
        leader, worst = hypotheses[0], self.best[-1][0]
        hope = self._ranking.hope(leader.total, len(leader.tokens))
        return self._ranking.early_stopping is True or hope <= worst


def ending(tokens: tuple[int, ...], logprobs: tuple[LogProb, ...], context: Context) -> str | None:
    """What ends a sequence of these new tokens, if anything does."""
    if tokens[-1] in context.eos:
        return "eos"
    return context.ended(tokens, logprobs) or ("length" if len(tokens) >= context.limit else None)


def place(hypotheses: Listed[Hypothesis], rows: set[int]) -> Request:
    """What brings the last tokens of hypotheses to rows of their own, which they are given here.

    The first child of a row goes on in place, its other children fork; of `rows` those without a child are released.
    """
    parents = {each.row for each in hypotheses}
    released = tuple((0, row) for row in sorted(rows - parents))
    free = (row for row in count() if row not in parents)
    waiting, extends = set(parents), []
    for each in hypotheses:
        parent = each.row
        if parent not in waiting:
            each.row = next(free)
        waiting.discard(parent)
        extends.append(Extend(each.row, each.tokens[-1:], parent))
    return Request(extend=tuple(extends), release=released)
