"""sdk, search: one step of a beam: continuations ranked over all its hypotheses and the whole vocabulary."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgewise.search.hypotheses import Completed, Hypothesis, ending
from edgewise.search.logprobs import logprob
from edgewise.search.processors import Chain
from edgewise.search.protocol import Context, FloatArray

Ids = NDArray[np.intp]
Doubles = NDArray[np.float64]


class Choice(Protocol):
    """How continuations are chosen: the best, or at random."""

    def candidates(self, scores: FloatArray, count: int) -> tuple[Ids, FloatArray]:
        """Tokens that a hypothesis may go on with, `count` or more where there are, and their scores."""
        ...

    def ranked(self, totals: Doubles, count: int, rng: np.random.Generator) -> Ids:
        """Which of the continuations of all hypotheses come first, `count` of them in their order."""
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
        parents, tokens, totals = [], [], []
        for i, hypothesis in enumerate(hypotheses):
            own = log_probs[hypothesis.row]
            scores = self._processor.apply(hypothesis.state, own.copy() if discount is None else own - discount)
            ids, values = self._choice.candidates(scores, count)
            possible = values > -np.inf
            parents += [i] * int(possible.sum())
            tokens.append(ids[possible])
            totals.append(hypothesis.total + values[possible].astype(np.float64))
        joined, total = np.concatenate(tokens), np.concatenate(totals)
        order = self._choice.ranked(total, count, self._context.rng)
        return [(hypotheses[parents[i]], int(joined[i]), float(total[i])) for i in order]
