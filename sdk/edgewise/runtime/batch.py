"""sdk, runtime: tokens on their way into sessions; a token for each of many is one run of the graph."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError, GenerationError
from edgewise.runtime.ort import first_line
from edgewise.runtime.pool import Pool
from edgewise.search.protocol import FloatArray

if TYPE_CHECKING:
    from edgewise.runtime.session import Session


class Append:
    """Tokens that a session is to hold. `advance` computes a chunk of them, `decode` single ones of many sessions.

    In the end there are `logits` (and `hidden`, if they are wanted), or a `problem`; then the session is as it was.
    """

    def __init__(self, session: "Session", ids: NDArray[np.int64], *, scores: int = 1, hidden: bool = False) -> None:
        self.session = session
        self.ids = ids
        self.scores = scores
        self.wants_hidden = hidden
        self.done = 0  # tokens
        self.logits: FloatArray | None = None  # [scores, vocabulary]
        self.hidden: FloatArray | None = None  # [tokens, hidden size]
        self.problem: EdgewiseError | None = None

    @property
    def over(self) -> bool:
        return self.problem is not None or self.done == len(self.ids)

    @property
    def single(self) -> bool:
        return len(self.ids) == 1

    def advance(self) -> int:
        """Compute the next chunk; how many tokens that were."""
        slot, pool, begin = self.session.slot, self.session.pool, self.done
        end = min(begin + self.session.chunk, len(self.ids))
        if self.logits is None:
            self.logits = self.session.room(self.scores)
            self.hidden = pool.hidden(len(self.ids)) if self.wants_hidden else None
        first = len(self.ids) - self.scores  # the first position whose scores are wanted
        row = max(0, begin - first)
        logits = self.logits[row : row + max(1, end - max(begin, first))]
        hidden = None if self.hidden is None else self.hidden[None, begin:end]
        try:
            pool.run([slot], self.ids[None, begin:end], logits[None], hidden)
        except Exception as error:
            self.fail(_failed(error, slot.length))
            return 0
        slot.hold(self.ids[begin:end])
        self.done = end
        if self.over and not all(math.isfinite(row.max()) for row in self.logits):
            self.fail(_not_finite(slot.length))
        return end - begin

    def result(self) -> FloatArray:
        """The scores; raises what went wrong."""
        if self.problem is not None:
            raise self.problem
        assert self.logits is not None
        return self.logits

    def fail(self, problem: EdgewiseError) -> None:
        """Leave the session as it was before."""
        self.session.rewind(self.session.length - self.done)
        self.problem = problem


def compute(appends: Sequence[Append]) -> None:
    """All there is to do for these, of different sessions: single tokens together, then the others in order."""
    decode([append for append in appends if append.single])
    for append in appends:
        while not append.over:
            append.advance()


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
