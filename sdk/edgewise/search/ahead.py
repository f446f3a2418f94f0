"""sdk, search: a flow whose next scores are computed ahead, for the tokens that a draft expects it to ask for.

The search itself is left alone: it chooses every token, from scores that it would have received anyway. So what it
gives does not depend on the drafts, nor on how wide they are, and any search works whose one row grows token by
token, whatever state it keeps. A draft of one certain token is accepted as often as the residual scheme accepts it.
"""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from edgewise.search.pace import Pace
from edgewise.search.protocol import Context, Extend, FloatArray, Flow, Reply, Request

Clock = Callable[[], float]
NEAR = 2  # tokens that a drafter may lack when its time is taken: a draft's row after all were accepted


class Trust(Enum):
    """What drafts have deserved so far."""

    NONE = "a step is of one token, as without speculation"
    TRIAL = "one token is drafted"
    FULL = "as many are drafted as pay"


class Drafter(Protocol):
    """Guesses how a text goes on."""

    def begin(self, prompt: tuple[int, ...], vocabulary: int) -> None:
        """The text so far, and how many tokens are scored."""
        ...

    def add(self, token: int) -> None:
        """The text has this token more."""
        ...

    def trust(self) -> Trust:
        """By the text alone: how a token is computed must not depend on a clock."""
        ...

    def promise(self) -> int:
        """How good a draft would be, as a class of drafts that are alike; 0 where there is none."""
        ...

    def behind(self) -> int:
        """Tokens of the text that it has to catch up with."""
        ...

    def draft(self, count: int) -> Generator[Request, Reply, tuple[int, ...]]:
        """At most so many tokens that may come next; it may ask for scores of other models."""
        ...


@dataclass(frozen=True)
class Speculation:
    """What drafts, and what says how much."""

    drafter: Drafter
    pace: Pace
    clock: Clock = time.perf_counter


def ahead(flow: Flow, context: Context, speculation: Speculation) -> Flow:
    """The same flow; most of its requests are answered from what a verification has scored already."""
    row = Row(context, speculation)
    known = _Known()
    with closing(flow):
        try:
            request = next(flow)
            while True:
                if request.extend:
                    reply = yield from _answer(request.extend, row, known)
                else:
                    reply = yield request
                request = flow.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class Row:
    """Row 0 as a speculative search extends it: the text so far, and drafts that may be wrong.

    While drafts are trusted, a step has an even number of tokens, all of them scored: one that does not count comes
    last where it would be odd. Kernels take tokens in pairs, and a single one otherwise: so scores do not depend on
    how many are drafted.
    """

    def __init__(self, context: Context, speculation: Speculation) -> None:
        self._context = context
        self._by = speculation
        self._promise = 0
        self._last = -1  # token of the text
        self._length = 0  # of the text
        self.draft: tuple[int, ...] = ()  # what was drafted in the last step
        self.accepted = 0  # of it, what the text has now

    def begin(self) -> Generator[Request, Reply, FloatArray]:
        """The scores after the prompt."""
        prompt = self._context.prompt
        reply = yield Request(extend=(Extend(0, prompt, parent=None),))
        self._length = len(prompt)
        self._by.drafter.begin(prompt, reply.logits[0].shape[1])
        return reply.logits[0]

    def add(self, token: int) -> bool:
        """The text has this token more; whether it is the drafted one, and what comes after it is known for good."""
        self._last = token
        self._length += 1
        self._by.drafter.add(token)
        if self.draft[self.accepted : self.accepted + 1] != (token,) or self._trust() is Trust.NONE:
            return False
        self.accepted += 1
        self._context.drafts.accepted += 1
        return True

    def extend(self) -> Generator[Request, Reply, FloatArray]:
        """Compute the last token that was added, and a new draft: the scores after it and after each drafted one."""
        drafts, trust = self._context.drafts, self._trust()
        if self.draft:
            self._by.pace.judged(self._promise, self.accepted, len(self.draft))
        self.accepted = 0
        self.draft = (yield from self._drafted(trust)) if trust is not Trust.NONE else ()
        new = (self._last, *self.draft)
        padded = new if trust is Trust.NONE or len(new) % 2 == 0 else (*new, new[-1])
        started = self._by.clock()
        reply = yield Request(extend=(Extend(0, padded, parent=0, length=self._length - 1, scores=len(padded)),))
        self._by.pace.stepped(len(padded), self._by.clock() - started)
        if self.draft:
            drafts.steps += 1
            drafts.drafted += len(self.draft)
        return reply.logits[0][: len(new)]

    def _trust(self) -> Trust:
        return Trust.FULL if self._by.pace.fixed else self._by.drafter.trust()

    def _drafted(self, trust: Trust) -> Generator[Request, Reply, tuple[int, ...]]:
        """A draft up to the token that would end the text. That one stays: a draft is not chosen by what it is."""
        drafter, pace = self._by.drafter, self._by.pace
        self._promise = drafter.promise()
        most = self._context.limit - (self._length - len(self._context.prompt)) - 1
        width = pace.width(self._promise, most) if trust is Trust.FULL else min(self._promise, most, 1)
        if not width:
            return ()
        timed, started = drafter.behind() <= NEAR, self._by.clock()
        draft = yield from drafter.draft(width)
        if timed and draft:
            pace.drafted(len(draft), self._by.clock() - started)
        ends = (i for i, token in enumerate(draft, 1) if token in self._context.eos)
        return draft[: next(ends, len(draft))]


class _Known:
    """Scores after drafted tokens: a copy, since what a reply has is gone at the next request."""

    def __init__(self) -> None:
        self.rows: FloatArray = np.empty((0, 0), np.float32)

    def keep(self, rows: FloatArray) -> None:
        if len(self.rows) < len(rows):
            self.rows = np.empty(rows.shape, np.float32)
        if len(rows):
            self.rows[: len(rows)] = rows


def _answer(extends: tuple[Extend, ...], row: Row, known: _Known) -> Generator[Request, Reply, Reply]:
    (extend,) = extends
    if extend.parent is None:
        return Reply(((yield from row.begin()),))
    (token,) = extend.tokens
    if row.add(token):
        return Reply((known.rows[row.accepted - 1 : row.accepted],))
    scores = yield from row.extend()
    known.keep(scores[1:])
    return Reply((scores[:1],))
