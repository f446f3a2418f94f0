"""sdk, runtime: one sequence: its keys and values, and the scores of what may come next."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import ContextOverflow, GenerationError
from edgewise.runtime.bound import Bound
from edgewise.runtime.model import Model
from edgewise.runtime.ort import first_line
from edgewise.search.protocol import FloatArray

CHUNK = 128  # tokens that a prefill computes at a time: more are no faster, and take more memory for activations


class Session:
    """One KV cache. `prefill` and `decode` append tokens and return the scores of what may follow them.

    Buffers hold `capacity` tokens, are bound once and written in place; they grow (at least double, up to the
    model's context) only when more is appended than was asked for. Scores are a view, valid until the next call.
    Where the model has a graph for long prompts, it computes what is appended `model.prefill_from` tokens or more at
    a time, and the other one the rest, in one cache: so scores depend on how tokens were appended, if on nothing else.
    Whatever fails leaves the session as it was. A session belongs to one thread at a time; several share a model.
    """

    def __init__(self, model: Model, *, capacity: int, chunk: int = CHUNK) -> None:
        self.model = model
        self.length = 0
        self.capacity = 0
        self.chunk = chunk
        self.decoder = Bound(model.graph, model.ones, model.rotary)
        self.prompts = Bound(model.prompts, model.ones, model.rotary) if model.prompts else self.decoder
        self.hidden: NDArray[np.float32] | None = None  # of the last prefill or decode that was asked for them
        self._buffers: list[NDArray[Any]] = []
        self._ids = np.zeros(chunk, np.int64)
        self._tokens = np.zeros(0, np.int64)
        self._logits = np.zeros((1, model.facts.vocab_size), np.float32)
        self._allocate(capacity)

    def prefill(self, tokens: Sequence[int], *, scores: int = 1, hidden: bool = False) -> FloatArray:
        """Append tokens, a chunk at a time; the scores after the last `scores` of them, `[scores, vocabulary]`.

        With `hidden`, `self.hidden` are the hidden states of all that is appended, `[tokens, hidden size]`.
        """
        ids = self._checked(tokens)
        if not 1 <= scores <= len(ids):
            raise GenerationError(f"{scores} positions cannot be scored when {len(ids)} tokens are appended")
        start = self.length
        self._reserve(start + len(ids))
        if len(self._logits) < scores:
            self._logits = np.zeros((scores, self.model.facts.vocab_size), np.float32)
            self.decoder.forget_shape()
            self.prompts.forget_shape()
        self.hidden = self._hidden_states(len(ids)) if hidden else None
        first = len(ids) - scores  # the first position whose scores are wanted
        for begin in range(0, len(ids), self.chunk):
            end = min(begin + self.chunk, len(ids))
            self._ids[: end - begin] = ids[begin:end]
            row = max(0, begin - first)
            self._run(start + begin, end - begin, row, max(1, end - max(begin, first)), begin)
        self._check_finite(scores, start + len(ids))
        self._hold(ids)
        return self._logits[:scores]

    def decode(self, token: int) -> FloatArray:
        """Append one token; the scores of the next, `[1, vocabulary]`."""
        if not 0 <= token < self.model.facts.vocab_size:
            raise GenerationError(_not_a_token(token, self.model))
        if self.length >= self.capacity:
            self._reserve(self.length + 1)
        self._ids[0] = token
        self.hidden = None
        self._run(self.length, 1, 0, 1)
        self._check_finite(1, self.length + 1)
        self._hold(self._ids[:1])
        return self._logits[:1]

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise GenerationError(f"cannot rewind to {length} tokens: the session holds {self.length}")
        self.length = length

    def fork(self, length: int | None = None) -> "Session":
        """A session of its own with the same first tokens (all of them, or `length`); the cache is copied."""
        other = Session(self.model, capacity=self.capacity, chunk=self.chunk)
        other.follow(self, length)
        return other

    def follow(self, other: "Session", length: int | None = None) -> None:
        """Forget all, and hold a copy of what another session of the same model holds (or its first `length`)."""
        kept = other.length if length is None else length
        if not 0 <= kept <= other.length:
            raise GenerationError(f"cannot copy {kept} tokens: the session holds {other.length}")
        self.length = 0
        self._reserve(kept)
        for mine, theirs in zip(self._buffers, other._buffers, strict=True):
            mine[:, :, :kept] = theirs[:, :, :kept]
        self._hold(other.tokens[:kept])

    @property
    def tokens(self) -> NDArray[np.int64]:
        """What the session holds, `[length]`; a view, valid until the next call."""
        return self._tokens[: self.length]

    def export(self, start: int, stop: int) -> list[NDArray[Any]]:
        """Copies of the keys and values of these positions: one per `model.cache`, `[heads, stop - start, dim]`."""
        if not 0 <= start <= stop <= self.length:
            raise GenerationError(f"cannot export positions {start} to {stop}: the session holds {self.length} tokens")
        return [buffer[0, :, start:stop].copy() for buffer in self._buffers]

    def restore(self, tokens: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """Append tokens whose keys and values are known, as `export` gives them: nothing is computed."""
        ids = self._checked(tokens)
        start, stop = self.length, self.length + len(ids)
        for tensor, array in zip(self.model.cache, arrays, strict=True):
            if array.shape != (tensor.heads, len(ids), tensor.dim) or array.dtype != tensor.dtype:
                raise GenerationError(
                    f"{tensor.past} of {len(ids)} tokens is {tensor.dtype} {(tensor.heads, len(ids), tensor.dim)}, "
                    f"got {array.dtype} {array.shape}"
                )
        self._reserve(stop)
        for buffer, array in zip(self._buffers, arrays, strict=True):
            buffer[0, :, start:stop] = array
        self._hold(ids)

    @property
    def bytes(self) -> int:
        """Memory of the cache."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def _hold(self, ids: NDArray[np.int64]) -> None:
        """These tokens are in the cache now, after those that were."""
        self._tokens[self.length : self.length + len(ids)] = ids
        self.length += len(ids)

    def _checked(self, tokens: Sequence[int]) -> NDArray[np.int64]:
        ids = np.asarray(tokens, np.int64)
        if not len(ids):
            raise GenerationError("no tokens were given to append")
        for token in (int(ids.min()), int(ids.max())):
            if not 0 <= token < self.model.facts.vocab_size:
                raise GenerationError(_not_a_token(token, self.model))
        return ids

    def _reserve(self, tokens: int) -> None:
        if tokens > self.model.context:
            raise ContextOverflow(f"{tokens} tokens do not fit in the context of {self.model.context}")
        if tokens > self.capacity:
            self._allocate(min(self.model.context, max(tokens, 2 * self.capacity)))

    def _allocate(self, capacity: int) -> None:
        """Buffers for so many tokens, with what is in the cache, bound as the past and the present of each layer."""
        if not 0 < capacity <= self.model.context:
            raise ContextOverflow(f"a session of {capacity} tokens does not fit in the context of {self.model.context}")
        buffers: list[NDArray[Any]] = []
        for i, tensor in enumerate(self.model.cache):
            buffer = np.zeros(tensor.shape(capacity), tensor.dtype)
            if self.length:
                buffer[:, :, : self.length] = self._buffers[i][:, :, : self.length]
            buffers.append(buffer)
        for bound in {self.decoder, self.prompts}:
            bound.bind_cache(self.model.cache, buffers)
        self._buffers, self.capacity = buffers, capacity
        self._tokens = np.concatenate([self.tokens, np.zeros(capacity - self.length, np.int64)])

    def _hidden_states(self, count: int) -> NDArray[np.float32]:
        if not self.model.hidden:
            raise GenerationError(
                "hidden states are asked for, and the bundle's graph gives none: build it with --hidden-states"
            )
        return np.zeros((count, self.model.facts.hidden_size), np.float32)

    def _run(self, start: int, count: int, row: int, scores: int, begin: int = 0) -> None:
        """Compute `count` tokens of `_ids` after the first `start`, with scores written from `row` on."""
        bound = self.prompts if count >= self.model.prefill_from else self.decoder
        if self.hidden is not None:
            bound = self._bind_hidden(bound, self.hidden[begin : begin + count])
        try:
            bound.run(self._ids, self._logits, start, count, row, scores)
        except Exception as error:
            raise GenerationError(f"ONNX Runtime failed after {start} tokens: {first_line(error)}") from error

    def _bind_hidden(self, bound: Bound, hidden: NDArray[np.float32]) -> Bound:
        other = Bound(bound.graph, self.model.ones, self.model.rotary)
        other.bind_cache(self.model.cache, self._buffers)
        other.bind_hidden(hidden)
        return other

    def _check_finite(self, scores: int, length: int) -> None:
        """The maximum of a row shows a NaN or +infinity anywhere in it, for a fifth of the cost of a look at all."""
        for row in self._logits[:scores]:
            if not math.isfinite(row.max()):
                raise GenerationError(
                    f"the model's scores after {length} tokens are not finite (NaN or infinity): "
                    "its weights are damaged, or overflow in this precision"
                )


def _not_a_token(token: int, model: Model) -> str:
    return f"token {token} does not exist: the vocabulary has {model.facts.vocab_size}, from 0 on"
