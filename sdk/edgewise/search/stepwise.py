"""sdk, search: one sequence, a token at a time: what greedy search and sampling share."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from edgewise.errors import GenerationError
from edgewise.search.penalties import FrequencyPenalty, PresencePenalty, RepetitionPenalty
from edgewise.search.processors import Chain
from edgewise.search.protocol import Context, Emit, Extend, FloatArray, Flow, Processor, Request, Search


@dataclass(frozen=True, kw_only=True)
class Stepwise(Search):
    """A subclass chooses the next token from its scores. Penalties come after the caller's own processors."""

    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def __post_init__(self) -> None:
        self._penalties()

    @abstractmethod
    def choose(self, scores: FloatArray, rng: np.random.Generator) -> int:
        """The next token, from `[vocabulary]` scores (a view, which may be written to)."""

    def flow(self, context: Context) -> Flow:
        processor = Chain((*context.processors, *self._penalties()))
        state = processor.start(context.prompt)
        step = Extend(0, context.prompt, parent=None)
        while True:
            reply = yield Request(extend=(step,))
            scores = processor.apply(state, reply.logits[0][-1])
            if processor.processors and not scores.max() > -np.inf:
                raise GenerationError("the processors have left no token to choose: all are banned")
            token = self.choose(scores, context.rng)
            reply = yield Request(emit=(Emit(0, (token,)),))
            if reply.stopped:
                return ()
            state = processor.advance(state, (token,))
            step = Extend(0, (token,), parent=0)

    def _penalties(self) -> tuple[Processor, ...]:
        """Those that do something; each checks its own value."""
        repetition = RepetitionPenalty(self.repetition_penalty)
        presence = PresencePenalty(self.presence_penalty)
        frequency = FrequencyPenalty(self.frequency_penalty)
        chosen: list[Processor] = [repetition] if repetition.penalty != 1 else []
        return (*chosen, *(penalty for penalty in (presence, frequency) if penalty.penalty != 0))
