"""sdk, search: one sequence, a token at a time: what greedy search and sampling share."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import GenerationError
from edgewise.search.draw import draw
from edgewise.search.logprobs import logprob
from edgewise.search.processors import Chain
from edgewise.search.protocol import Context, Emit, Extend, FloatArray, Flow, LogProb, Request, Search

Ids = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Stepwise(Search):
    """A subclass says which tokens may come next, with which weights: one of them is drawn.

    A search may keep a state between tokens, a value that `choose` returns and that a fork takes along. One that does
    says so by `stateful`: its distribution depends on what it drew before, and on nothing but the scores otherwise.
    """

    stateful: ClassVar[bool] = False

    def start(self) -> Any:
        """The state before the first token."""
        return None

    @abstractmethod
    def candidates(self, scores: FloatArray, state: Any = None) -> tuple[Ids | None, FloatArray]:
        """The tokens that may be drawn (None: all) and their weights, from `[vocabulary]` scores.

        Weights are probabilities up to a factor, some of them 0. The scores are a view and may be written to.
        """

    def choose(self, scores: FloatArray, state: Any, rng: np.random.Generator) -> tuple[int, Any]:
        """The next token and the state after it, from `[vocabulary]` scores (a view, which may be written to)."""
        ids, weights = self.candidates(scores, state)
        index = draw(weights, rng)
        return index if ids is None else int(ids[index]), state

    def flow(self, context: Context) -> Flow:
        processor = Chain(context.processors)
        history, state = processor.start(context.prompt), self.start()
        step = Extend(0, context.prompt, parent=None)
        while True:
            reply = yield Request(extend=(step,))
            raw = reply.logits[0][-1]
            own = None if context.logprobs is None else raw.copy()  # processors write into what they are given
            scores = allowed(processor, history, raw)
            token, state = self.choose(scores, state, context.rng)
            reply = yield Request(emit=(Emit(0, (token,), _logprobs(own, token, context)),))
            if reply.stopped:
                return ()
            history = processor.advance(history, (token,))
            step = Extend(0, (token,), parent=0)


def allowed(processor: Chain, state: Any, logits: FloatArray) -> FloatArray:
    """The scores as processors leave them. Raises GenerationError when they leave none."""
    scores = processor.apply(state, logits)
    if processor.processors and not scores.max() > -np.inf:
        raise GenerationError("the processors have left no token to choose: all are banned")
    return scores


def _logprobs(scores: FloatArray | None, token: int, context: Context) -> tuple[LogProb, ...]:
    return () if scores is None else (logprob(scores, token, context.logprobs or 0),)
