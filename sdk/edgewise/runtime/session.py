"""sdk, runtime: one sequence: its keys and values, and the scores of what may come next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import GenerationError
from edgewise.runtime import ring, saved
from edgewise.runtime.batch import Append, compute
from edgewise.runtime.model import Model
from edgewise.runtime.pool import Pool, Slot
from edgewise.runtime.window import Window, refuse_unmovable, turn_back
from edgewise.search.protocol import FloatArray


class Session:
    """One KV cache. `prefill` and `decode` append tokens and return the scores of what may follow them.

    Buffers hold `capacity` tokens and are written in place; they grow (at least double, up to the model's context) only
    when more is appended than was asked for. Scores are a view, valid until the next call.
    Where the model has a graph for long prompts, it computes what is appended `model.prefill_from` tokens or more at
    a time, and the other one the rest, in one cache: so scores depend on how tokens were appended, if on nothing else.
    Whatever fails leaves the session as it was. A session belongs to one thread at a time; several share a model.
    With a `window`, a session whose context is full forgets the tokens that it says, for good, and goes on.
    A session has a pool of its own, unless it is given one to share with others, in one thread with them.
    """

    def __init__(
        self,
        model: Model,
        *,
        capacity: int,
        chunk: int | None = None,  # tokens that a prefill computes at a time; None: as the model has it
        window: Window | None = None,
        pool: Pool | None = None,
        slot: Slot | None = None,  # that was taken from the pool
    ) -> None:
        if window:
            refuse_unmovable(model.facts)
        model.refuse_without_source()
        self.model = model
        self.chunk = chunk or model.chunk
        self.window = window
        self.pool = pool or Pool(model, capacity=capacity)
        self.slot = slot or self.pool.take()
        self.hidden: FloatArray | None = None  # of the last prefill or decode that was asked for them
        self._logits = np.zeros((0, model.facts.vocab_size), np.float32)

    @property
    def length(self) -> int:
        """Tokens that it holds."""
        return self.slot.length

    @property
    def forgotten(self) -> int:
        """Tokens that it held once; all but the sinks of its window came after them."""
        return self.slot.forgotten

    @property
    def capacity(self) -> int:
        """Tokens that it can hold without growing."""
        return self.pool.capacity

    @property
    def tokens(self) -> NDArray[np.int64]:
        """What the session holds, `[length]`; a view, valid until the next call."""
        return self.slot.tokens[: self.length]

    @property
    def remembered(self) -> int:
        """The first position whose keys and values it has in all layers: 0, unless layers with a window have rings."""
        return min(self.length, self.model.rings.first(self.slot.reached))

    @property
    def bytes(self) -> int:
        """Memory of its keys and values."""
        return self.pool.bytes // len(self.pool.slots)

    def prefill(self, tokens: Sequence[int], *, scores: int = 1, hidden: bool = False) -> FloatArray:
        """Append tokens, a chunk at a time; the scores after the last `scores` of them, `[scores, vocabulary]`.

        With 0 scores they are only held, which takes less time where lengths are fixed.

        With `hidden`, `self.hidden` are the hidden states of all that is appended, `[tokens, hidden size]`.
        """
        append = self.append(tokens, scores=scores, hidden=hidden)
        compute([append])
        self.hidden = append.hidden
        return append.result()

    def decode(self, token: int) -> FloatArray:
        """Append one token; the scores of the next, `[1, vocabulary]`."""
        return self.prefill((token,))

    def append(self, tokens: Sequence[int], *, scores: int = 1, hidden: bool = False) -> Append:
        """What `prefill` does, checked and ready to be computed, alone or beside what other sessions append."""
        ids = self._checked(tokens)
        if not 0 <= scores <= len(ids):
            raise GenerationError(f"{scores} positions cannot be scored when {len(ids)} tokens are appended")
        if hidden and not self.model.hidden:
            mend = "graphs of fixed lengths have none" if self.model.fixed else "build it with --hidden-states"
            raise GenerationError(f"hidden states are asked for, and the bundle's graph gives none: {mend}")
        if self.window:
            self._forget(self.window.excess(self.length, len(ids), self.model.context), self.window.sinks)
        self.pool.reserve(self.length + len(ids))
        self._recall()
        return Append(self, ids, scores=scores, hidden=hidden)

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise GenerationError(f"cannot rewind to {length} tokens: the session holds {self.length}")
        self.slot.length = length
        if self.window and (length < self.window.sinks or not length):
            self.slot.forgotten = 0
        if not length:
            self.slot.reached = 0

    def fork(self, length: int | None = None, *, pool: Pool | None = None) -> "Session":
        """Another session with the same first tokens (all of them, or `length`); the cache is copied.

        In a pool it takes the slot that has most in common with them already.
        """
        slot = pool.take(self.slot, self.length if length is None else length) if pool else None
        other = Session(self.model, capacity=self.capacity, chunk=self.chunk, window=self.window, pool=pool, slot=slot)
        other.follow(self, length)
        return other

    def follow(self, other: "Session", length: int | None = None) -> None:
        """Forget all, and hold a copy of what another session of the same model holds (or its first `length`).

        What they have in common since one followed the other is not copied again.
        """
        kept = other.length if length is None else length
        if not 0 <= kept <= other.length:
            raise GenerationError(f"cannot copy {kept} tokens: the session holds {other.length}")
        self.pool.follow(self.slot, other.slot, other.pool, kept)

    def export(self, start: int, stop: int) -> list[NDArray[Any]]:
        """Copies of the keys and values of these positions: one per `model.cache`, `[heads, stop - start, dim]`.

        Raises GenerationError for those before `remembered`.
        """
        if not 0 <= start <= stop <= self.length:
            raise GenerationError(f"cannot export positions {start} to {stop}: the session holds {self.length} tokens")
        if start < stop and start < self.remembered:
            raise GenerationError(
                f"cannot export positions {start} to {stop}: layers that look back a window keep those from "
                f"{self.remembered} on only"
            )
        return [ring.get(buffer[self.slot.index], start, stop) for buffer in self.pool.buffers]

    def restore(self, tokens: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """Append tokens whose keys and values are known, as `export` gives them: nothing is computed.

        In a ring, the last ones that it needs are enough.
        """
        ids = self._checked(tokens)
        stop, reached = self.length + len(ids), 0
        for tensor, array in zip(self.model.cache, arrays, strict=True):
            shapes = [(tensor.heads, count, tensor.dim) for count in (len(ids), tensor.kept(len(ids)))]
            if array.shape not in shapes or array.dtype != tensor.dtype:
                raise GenerationError(
                    f"{tensor.past} of {len(ids)} tokens is {tensor.dtype} {shapes[0]}, got {array.dtype} {array.shape}"
                )
            if array.shape != shapes[0]:
                reached = max(reached, stop - array.shape[1] + tensor.slots)
        self.pool.reserve(stop)
        for buffer, array in zip(self.pool.writable(), arrays, strict=True):
            ring.put(buffer[self.slot.index], stop - array.shape[1], array)
        self.slot.hold(ids)
        self.slot.reach(reached)

    def save(self, path: str | Path) -> None:
        """Write all that it holds to a file, or in place of one. Raises CacheError."""
        self._recall()
        arrays = [
            ring.get(buffer[self.slot.index], self.length - tensor.kept(self.length), self.length)
            for buffer, tensor in zip(self.pool.buffers, self.model.cache, strict=True)
        ]
        saved.save(path, self.model, saved.Saved(self.tokens, arrays))

    def load(self, path: str | Path) -> None:
        """Forget all, and hold what a file holds. Raises CacheError where that is not of this model."""
        found = saved.load(path, self.model)
        self.rewind(0)
        self.restore(found.tokens.tolist(), found.arrays)

    def room(self, scores: int) -> FloatArray:
        """Where scores are written, `[scores, vocabulary]`."""
        if scores == 1:
            row: FloatArray = self.pool.logits[self.slot.index]
            return row
        if len(self._logits) < scores:
            self._logits = np.zeros((scores, self.model.facts.vocab_size), np.float32)
        return self._logits[:scores]

    def release(self) -> None:
        """Give the slot back to the pool; the session is not to be used after that."""
        self.pool.give(self.slot)

    def _recall(self) -> None:
        """Compute all that it holds once more, where rings have lost what comes next: it went back too far for them."""
        slot = self.slot
        if self.model.rings.suffice(slot.length, slot.reached):
            return
        before, tokens = (slot.length, slot.reached, slot.forgotten), self.tokens.copy()
        slot.length = slot.reached = 0
        try:
            append = Append(self, tokens, scores=0)
            compute([append])
            append.result()
        except BaseException:
            slot.length, slot.reached, slot.forgotten = before
            raise

    def _forget(self, count: int, start: int) -> None:
        if count:
            moved = turn_back(self.model, start, start + count, self.length)
            self.pool.forget(self.slot, start, start + count, moved)

    def _checked(self, tokens: Sequence[int]) -> NDArray[np.int64]:
        if not len(tokens):
            raise GenerationError("no tokens were given to append")
        given = np.asarray(tokens)
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise GenerationError(f"tokens are {tokens!r:.60}; they must be whole numbers, one after the other")
        ids = given.astype(np.int64, copy=False)
        for token in (int(ids.min()), int(ids.max())):
            if not 0 <= token < self.model.facts.vocab_size:
                raise GenerationError(
                    f"token {token} does not exist: the vocabulary has {self.model.facts.vocab_size}, from 0 on"
                )
        return ids
