"""sdk, search: contrastive search (arXiv 2202.06417): probable tokens that do not bring back what was said."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.logprobs import log_sum_exp, logprob, most_probable
from edgewise.search.processors import Chain
from edgewise.search.protocol import Context, Emit, Extend, FloatArray, Flow, Request, Search
from edgewise.search.stepwise import Ids, allowed


@dataclass(frozen=True, kw_only=True)
class Contrastive(Search):
    """Takes of the `top_k` most probable tokens one that is probable, and unlike all that comes before it.

    A token's score is (1 - alpha) * its probability - alpha * the largest cosine between its hidden state and that of
    any token before it (equation 5). Each candidate is computed, `top_k` rows a step. The bundle must give hidden
    states.
    """

    name: ClassVar[str] = "contrastive"
    penalty_alpha: float = 0.6  # 0: greedy
    top_k: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.penalty_alpha <= 1:
            raise OptionError(f"penalty_alpha is {self.penalty_alpha}; it must be from 0 (greedy) to 1")
        if self.top_k < 1:
            raise OptionError(f"top_k is {self.top_k}; it must be 1 (greedy) or above")

    def flow(self, context: Context) -> Flow:
        processor = Chain(context.processors)
        history = processor.start(context.prompt)
        reply = yield Request(extend=(Extend(0, context.prompt, parent=None),), hidden=True)
        assert reply.hidden is not None
        before = _Directions(reply.hidden[0])
        row, raw = 0, reply.logits[0][-1].copy()
        while True:
            tokens, chances = self._candidates(allowed(processor, history, raw.copy()))
            rows = [row, *(other for other in range(len(tokens)) if other != row)][: len(tokens)]
            extends = [Extend(own, (int(token),), parent=row) for own, token in zip(rows, tokens, strict=True)]
            reply = yield Request(extend=tuple(extends), hidden=True)
            assert reply.hidden is not None
            states = np.concatenate(reply.hidden)
            scores = (1 - self.penalty_alpha) * chances - self.penalty_alpha * before.closest(states)
            best = int(scores.argmax())
            chosen = int(tokens[best])
            own = () if context.logprobs is None else (logprob(raw, chosen, context.logprobs),)
            row, raw = rows[best], reply.logits[best][-1].copy()
            before.append(states[best])
            reply = yield Request(
                emit=(Emit(0, (chosen,), own),), release=tuple((0, other) for other in rows if other != row)
            )
            if reply.stopped:
                return ()
            history = processor.advance(history, (chosen,))

    def _candidates(self, scores: FloatArray) -> tuple[Ids, FloatArray]:
        """The most probable tokens and their probabilities; none that is banned."""
        tokens = most_probable(scores, self.top_k)
        tokens = tokens[scores[tokens] > -np.inf]
        return tokens, np.exp(scores[tokens] - np.float32(log_sum_exp(scores)))


class _Directions:
    """Hidden states so far, as vectors of length 1."""

    def __init__(self, states: FloatArray) -> None:
        self._units = _unit(states)
        self._count = len(states)

    def closest(self, states: FloatArray) -> FloatArray:
        """For each of some states the largest cosine with one that is here."""
        found: FloatArray = (self._units[: self._count] @ _unit(states).T).max(axis=0)
        return found

    def append(self, state: FloatArray) -> None:
        if self._count == len(self._units):
            self._units = np.concatenate((self._units, np.empty_like(self._units)))
        self._units[self._count] = _unit(state[None])[0]
        self._count += 1


def _unit(states: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    unit: FloatArray = states / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit
