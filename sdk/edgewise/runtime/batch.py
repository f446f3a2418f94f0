"""sdk, runtime: tokens on their way into sessions; a token for each of many is one run of the graph."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError, GenerationError
from edgewise.runtime.library import first_line
from edgewise.runtime.pool import Pool
from edgewise.search.protocol import FloatArray

if TYPE_CHECKING:
    from edgewise.runtime.session import Session


class Prefixes(Protocol):
    """Keys and values of tokens that were computed before."""

    def restore(self, session: "Session", tokens: Sequence[int]) -> int:
        """Bring as many of the first tokens as are known into an empty session, never the last one; how many."""
        ...

    def store(self, session: "Session", length: int) -> None:
        """Take what is of use later from a session that holds a prompt, of its first tokens, `length`."""
        ...


class Append:
    """Tokens that a session is to hold. `advance` computes a chunk of them, `decode` single ones of many sessions.

    In the end there are `logits` (and `hidden`, if they are wanted), or a `problem`; then the session is as it was.
    With `prefixes` they are a prompt, for a session that is empty.
    """

    def __init__(self, session: "Session", ids: NDArray[np.int64], *, scores: int = 1, hidden: bool = False) -> None:
        self.session = session
        self.ids = ids
        self.scores = scores
        self.wants_hidden = hidden
        self.start = session.length
        self.done = 0  # tokens
        self.logits: FloatArray | None = None  # [scores, vocabulary]
        self.hidden: FloatArray | None = None  # [tokens, hidden size]
        self.problem: EdgewiseError | None = None
        self.prefixes: Prefixes | None = None
        self.restored = 0  # tokens that were known

    @property
    def over(self) -> bool:
        return self.problem is not None or self.done == len(self.ids)

    @property
    def single(self) -> bool:
        return len(self.ids) == 1

    def advance(self) -> int:
        """Compute the next chunk; how many tokens that were."""
        if self.logits is None:
            self.logits = self._begin()
        slot, begin = self.session.slot, self.done
        end = min(begin + self.session.chunk, len(self.ids))
        first = len(self.ids) - self.scores  # the first position whose scores are wanted
        row = max(0, begin - first)
        logits = self.logits[row : row + max(self.session.model.least_scores, end - max(begin, first))]
        hidden = None if self.hidden is None else self.hidden[None, begin:end]
        try:
            self.session.pool.run([slot], self.ids[None, begin:end], logits[None], hidden)
        except Exception as error:
            self.fail(_failed(error, slot.length))
            return 0
        slot.hold(self.ids[begin:end])
        self.done = end
        if self.over and not all(math.isfinite(row.max()) for row in self.logits):
            self.fail(_not_finite(slot.length))
        elif self.prefixes and (self.over or self.session.model.rings.sizes):  # which lose what is not taken in time
            single = self.scores if self.session.model.fixed else 0  # computed by another graph than prompts are
            self.prefixes.store(self.session, min(end, len(self.ids) - single))
        return end - begin

    def result(self) -> FloatArray:
        """The scores; raises what went wrong."""
        if self.problem is not None:
            raise self.problem
        assert self.logits is not None
        return self.logits[: self.scores]

    def fail(self, problem: EdgewiseError) -> None:
        """Give it up for a reason."""
        self.undo()
        self.problem = problem

    def undo(self) -> None:
        """Leave the session as it was before."""
        self.session.rewind(self.start)

    def _begin(self) -> FloatArray:
        """Room for what is computed, and what need not be: all that is scored has to."""
        if self.wants_hidden:
            self.hidden = self.session.pool.hidden(len(self.ids))
        if self.prefixes:
            tokens = self.ids[: len(self.ids) - self.scores + 1].tolist()
            self.done = self.restored = self.prefixes.restore(self.session, tokens)
        return self.session.room(max(self.scores, self.session.model.least_scores))


def compute(appends: Sequence[Append]) -> None:
    """All there is to do for these, of different sessions: single tokens together, then the others in order."""
    decode([append for append in appends if append.single])
    for append in appends:
        try:
            while not append.over:
                append.advance()
        except BaseException:  # an interrupt, too, leaves the session as it was
            append.undo()
            raise


def decode(appends: Sequence[Append]) -> None:
    """Compute single tokens of different sessions, those of one pool at once.

    What goes wrong with one of them does not touch the others.
    """
    by_pool: dict[Pool, list[Append]] = {}
    for append in appends:
        by_pool.setdefault(append.session.pool, []).append(append)
    for pool, group in by_pool.items():
        pool.pack([append.session.slot for append in group])
        for batch in _side_by_side(group):
            _decode(pool, batch)


def _side_by_side(appends: Sequence[Append]) -> list[list[Append]]:
    """By the place of their slots: no slot between those of a batch is left out."""
    batches: list[list[Append]] = []
    place = -2
    for append in sorted(appends, key=lambda append: append.session.slot.index):
        if append.session.slot.index != place + 1:
            batches.append([])
        batches[-1].append(append)
        place = append.session.slot.index
    return batches


def _decode(pool: Pool, batch: Sequence[Append]) -> None:
    slots = [append.session.slot for append in batch]
    logits = pool.logits[slots[0].index : slots[-1].index + 1]  # [rows, 1, vocabulary]
    hidden = None
    if any(append.wants_hidden for append in batch):
        hidden = pool.hidden(len(batch))[:, None]
    try:
        pool.run(slots, np.array([append.ids for append in batch]), logits, hidden)
    except Exception as error:
        if len(batch) > 1:  # whichever it was, it shall fail alone
            for append in batch:
                _decode(pool, [append])
        else:
            batch[0].fail(_failed(error, slots[0].length))
        return
    for row, append in enumerate(batch):
        _take(append, logits[row], hidden[row] if hidden is not None and append.wants_hidden else None)


def _take(append: Append, logits: FloatArray, hidden: FloatArray | None) -> None:
    """What a run gave for the row of an append."""
    slot = append.session.slot
    if not math.isfinite(logits.max()):
        append.fail(_not_finite(slot.length + 1))
        return
    slot.hold(append.ids)
    append.done, append.logits, append.hidden = 1, logits, hidden


def _failed(error: Exception, length: int) -> GenerationError:
    problem = GenerationError(f"ONNX Runtime failed after {length} tokens: {first_line(error)}")
    problem.__cause__ = error
    return problem


def _not_finite(length: int) -> GenerationError:
    """The maximum of a row shows a NaN or +infinity anywhere in it, for a fifth of the cost of a look at all."""
    return GenerationError(
        f"the model's scores after {length} tokens are not finite (NaN or infinity): "
        "its weights are damaged, or overflow in this precision"
    )
