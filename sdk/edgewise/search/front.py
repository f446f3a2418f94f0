"""sdk, search: one step of a beam: continuations ranked over all its hypotheses and the whole vocabulary."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgewise.search.hypotheses import Completed, Hypothesis, ending
from edgewise.search.logprobs import logprob
from edgewise.search.processors import Chain
from edgewise.search.protocol import Context, FloatArray


class Candidates(NamedTuple):
    """Tokens that a hypothesis may go on with."""

    tokens: NDArray[np.intp]
    scores: FloatArray
    keys: FloatArray  # with the total of the hypothesis, what decides which of all hypotheses' candidates are taken


class Choice(Protocol):
    """How continuations are chosen: the best, or at random."""

    def candidates(self, scores: FloatArray, count: int, rng: np.random.Generator) -> Candidates:
        """The `count` that come first, or all where there are fewer; what is banned may be among them."""
        ...


class Front:
    """A beam: its open hypotheses, best first, and the best of those that are complete."""

    def __init__(self, width: int, completed: Completed, choice: Choice, context: Context) -> None:
        self._processor = Chain(context.processors)
        self.open = [Hypothesis(0, self._processor.start(context.prompt))]
        self.completed = completed
        self._width = width
        self._choice = choice
        self._context = context

    def step(self, log_probs: Mapping[int, FloatArray], discount: FloatArray | None = None) -> list[int]:
        """Grow the open hypotheses by a token, with the log-probabilities by row; `discount` comes off each first.

        Of the continuations the first `width` may complete a sequence; those behind them only take the places of
        what ended. Returns the tokens of those that are open, also where it is over now.
        """
        before, self.open = self.open, []
        for rank, (parent, token, total) in enumerate(self._continuations(before, log_probs, discount)):
            if len(self.open) == self._width:
                break
            child = Hypothesis(parent.row, parent.state, (*parent.tokens, token), total)
            if self._context.logprobs is not None:
                own = logprob(log_probs[parent.row], token, self._context.logprobs)
                child.logprobs = (*parent.logprobs, own)
            reason = ending(child.tokens, child.logprobs, self._context)
            if reason is None:
                child.state = self._processor.advance(parent.state, (token,))
                self.open.append(child)
            elif rank < self._width:
                self.completed.add(child, reason)
        chosen = [hypothesis.tokens[-1] for hypothesis in self.open]
        if self.completed.settled(self.open):
            self.open = []
        return chosen

    def _continuations(
        self, hypotheses: list[Hypothesis], log_probs: Mapping[int, FloatArray], discount: FloatArray | None
    ) -> list[tuple[Hypothesis, int, float]]:
        """Enough of them to go on with, even if every token that ends a sequence is among the first of each."""
        count = max(2, 1 + len(self._context.eos)) * self._width
        found: list[tuple[float, float, Hypothesis, int]] = []
        for hypothesis in hypotheses:
            own = log_probs[hypothesis.row]
            scores = self._processor.apply(hypothesis.state, own.copy() if discount is None else own - discount)
            for token, score, key in zip(*self._choice.candidates(scores, count, self._context.rng), strict=True):
                if score > -np.inf:
                    total = hypothesis.total
                    found.append((total + float(key), total + float(score), hypothesis, int(token)))
        taken = sorted(found, key=lambda each: -each[0])[:count]
        best = sorted(taken, key=lambda each: -each[1])
        return [(hypothesis, token, total) for _, total, hypothesis, token in best]
