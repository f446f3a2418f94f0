"""sdk, search: speculative sampling with drafts that are drawn from the draft's own distribution.

arXiv 2211.17192, algorithm 1, and 2302.01318: a drafted token is kept with probability min(1, p / q), or else one is
drawn from max(p - q, 0): so each token has the distribution p of the search.
"""

import numpy as np
from numpy.typing import NDArray

from edgewise.search.ahead import Row, Speculation
from edgewise.search.draw import draw
from edgewise.search.logprobs import logprob
from edgewise.search.processors import Chain
from edgewise.search.protocol import Context, Emit, FloatArray, Flow, LogProb, Request
from edgewise.search.stepwise import Stepwise, allowed

Distribution = NDArray[np.float32]  # [vocabulary], of sum 1


class Drawn:
    """Draws drafted tokens as a search would, and keeps the distributions that they were drawn from."""

    def __init__(self, search: Stepwise, rng: np.random.Generator) -> None:
        self._search = search
        self._rng = rng
        self.distributions: list[Distribution] = []

    def __call__(self, scores: FloatArray) -> int:
        self.distributions.append(distribution(self._search, scores))
        return draw(self.distributions[-1], self._rng)


def residual(search: Stepwise, context: Context, speculation: Speculation, drawn: Drawn) -> Flow:
    """Samples whose tokens are distributed as those of the search, and are not the same ones with the same seed."""
    row = Row(context, speculation)
    processor = Chain(context.processors)
    history = processor.start(context.prompt)
    scores = yield from row.begin()
    while True:
        tokens: list[int] = []
        logprobs: list[LogProb] = []
        for place, raw in enumerate(scores):
            own = None if context.logprobs is None else raw.copy()
            p = distribution(search, allowed(processor, history, raw))
            if place < len(row.draft):
                token, kept = keep(row.draft[place], p, drawn.distributions[place], context.rng)
            else:
                token, kept = draw(p, context.rng), False
            tokens.append(token)
            if own is not None:
                logprobs.append(logprob(own, token, context.logprobs or 0))
            history = processor.advance(history, (token,))
            if not kept:
                break
        reply = yield Request(emit=(Emit(0, tuple(tokens), tuple(logprobs)),))
        if reply.stopped:
            return ()
        drawn.distributions.clear()
        for token in tokens:
            row.add(token)
        scores = yield from row.extend()


def keep(token: int, p: Distribution, q: Distribution, rng: np.random.Generator) -> tuple[int, bool]:
    """A token that is distributed as p, given one that was drawn from q; and whether it is that one."""
    if rng.random() * q[token] < p[token]:
        return token, True
    rest = np.maximum(p - q, 0)
    return draw(rest if rest.any() else p, rng), False  # rounding alone can leave nothing


def distribution(search: Stepwise, scores: FloatArray) -> Distribution:
    """What the search draws from. May write into the scores."""
    size = len(scores)
    ids, weights = search.candidates(scores)
    found = np.zeros(size, np.float32)
    found[slice(None) if ids is None else ids] = weights / weights.sum(dtype=np.float64)
    return found
