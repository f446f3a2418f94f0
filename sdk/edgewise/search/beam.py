"""sdk, search: beam search, with the scores, the length penalty and the ways to stop of transformers."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from edgewise.errors import GenerationError, OptionError
from edgewise.search.front import Candidates, Front
from edgewise.search.hypotheses import Completed, Ranking, place
from edgewise.search.logprobs import log_sum_exp, most_probable
from edgewise.search.protocol import Context, Extend, FloatArray, Flow, Request, Search, Sequence

STEEPEST = 50.0  # of length penalties: beyond it, powers of long contexts overflow


@dataclass(frozen=True, kw_only=True)
class Beam(Search):
    """Keeps the most probable sequences at each step, and gives the best of those that came to an end.

    Sequences are ranked by the sum of their log-probabilities divided by length ** `length_penalty`; processors
    apply to the log-probabilities of each. It stops when `num_beams` sequences are complete (`early_stopping` true),
    when besides no open one would rank among them at its present length (false), or at the best length ("never").
    """

    name: ClassVar[str] = "beam"
    num_beams: int = 4
    num_return: int = 1  # so many of the best
    length_penalty: float = 1.0  # above 0 favours long sequences, below 0 short ones
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise OptionError(f"num_beams is {self.num_beams}; it must be 1 or above")
        if not 1 <= self.num_return <= self.num_beams:
            raise OptionError(f"num_return is {self.num_return}; it must be from 1 to num_beams ({self.num_beams})")
        if not -STEEPEST <= self.length_penalty <= STEEPEST:
            raise OptionError(f"length_penalty is {self.length_penalty}; it must be from {-STEEPEST} to {STEEPEST}")
        if self.early_stopping not in (True, False, "never"):
            raise OptionError(f"early_stopping is {self.early_stopping!r}; it must be true, false or 'never'")

    def flow(self, context: Context) -> Flow:
        front = self.front(self.num_beams, context)
        request = Request(extend=(Extend(0, context.prompt, parent=None),))
        while front.open:
            reply = yield request
            log_probs = normalized(request, reply.logits)
            front.step(log_probs)
            request = place(front.open, set(log_probs))
        return best([front], self.num_return)

    def front(self, width: int, context: Context) -> Front:
        """A beam at its beginning."""
        ranking = Ranking(length_penalty=self.length_penalty, early_stopping=self.early_stopping, limit=context.limit)
        return Front(width, Completed(width, ranking), self, context)

    def candidates(self, scores: FloatArray, count: int, rng: np.random.Generator) -> Candidates:
        ids = most_probable(scores, count)
        return Candidates(ids, scores[ids], scores[ids])


def normalized(request: Request, logits: tuple[FloatArray, ...]) -> dict[int, FloatArray]:
    """The log-probabilities of the next token, `[vocabulary]`, by row."""
    return {
        extend.row: scores[-1] - np.float32(log_sum_exp(scores[-1]))
        for extend, scores in zip(request.extend, logits, strict=True)
    }


def best(fronts: list[Front], count: int) -> tuple[Sequence, ...]:
    """The best sequences that came to an end. Raises GenerationError where processors have banned every one."""
    found = sorted((pair for front in fronts for pair in front.completed.best), key=lambda pair: -pair[0])
    if not found:
        raise GenerationError("the processors have left no token to choose: all are banned")
    return tuple(sequence for _, sequence in found[:count])
