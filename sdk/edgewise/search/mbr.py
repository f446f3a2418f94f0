"""sdk, search: minimum Bayes risk (Eikema and Aziz, arXiv 2108.04718): the sample that agrees best with all of them."""

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from edgewise.errors import GenerationError, OptionError
from edgewise.search.greedy import Greedy
from edgewise.search.hypotheses import ending
from edgewise.search.named import Named, find_search
from edgewise.search.protocol import Context, Emit, Flow, LogProb, Reply, Request, Search, Vocabulary
from edgewise.search.protocol import Sequence as Found
from edgewise.search.samples import Samples
from edgewise.search.utilities import Utility, expected, find_utility


@dataclass(frozen=True, kw_only=True)
class Mbr(Search):
    """Draws samples and gives the one that is best on average, should each of them (itself included) be right.

    `utility` says how good a text is if another one is right: "chrf", "exact" (a vote), "token_f1", or in Python any
    function of the two texts. Its average is the score.
    """

    name: ClassVar[str] = "mbr"
    search: Search | Named = "sample"
    samples: int = 8
    utility: str | Utility = "chrf"
    num_return: int = 1  # so many of the best, no two the same
    _decode: Callable[[Sequence[int]], str] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise OptionError(f"samples is {self.samples}; it must be 2 or more, to have something to choose from")
        if not 1 <= self.num_return <= self.samples:
            raise OptionError(f"num_return is {self.num_return}; it must be from 1 to samples ({self.samples})")
        find_utility(self.utility)
        if isinstance(self.search, Greedy):
            raise OptionError("search 'greedy' gives the same text each time; mbr needs samples that differ")
        if isinstance(self.search, Search):
            Samples(search=self.search, n=self.samples)  # refuses what gives its sequences together

    def bind(self, vocabulary: Vocabulary) -> Self:
        made = replace(self, search=find_search(self.search, vocabulary))
        object.__setattr__(made, "_decode", vocabulary.decode)
        return made

    def flow(self, context: Context) -> Flow:
        if self._decode is None or not isinstance(self.search, Search):
            raise GenerationError(f"search '{self.name}' has not been bound to a vocabulary")
        samples = [_Sample(context) for _ in range(self.samples)]
        yield from _gathered(Samples(search=self.search, n=self.samples).flow(context), samples)
        scores = expected([self._decode(sample.tokens) for sample in samples], find_utility(self.utility))
        ranked = sorted(zip(scores, samples, strict=True), key=lambda pair: -pair[0])
        distinct = {sample.tokens: sample.found(score) for score, sample in reversed(ranked)}
        return tuple(reversed(distinct.values()))[: self.num_return]


class _Sample:
    """A sequence that is drawn and not emitted: here the rules end it."""

    def __init__(self, context: Context) -> None:
        self.tokens: tuple[int, ...] = ()
        self.reason: str | None = None
        self._context = context
        self._logprobs: tuple[LogProb, ...] = ()

    def take(self, emit: Emit) -> None:
        self._logprobs += emit.logprobs
        for token in emit.tokens:
            if self.reason is None:
                self.tokens += (token,)
                self.reason = ending(self.tokens, self._logprobs[: len(self.tokens)], self._context)
                if self.reason == "eos":
                    self.tokens = self.tokens[:-1]

    def found(self, score: float) -> Found:
        return Found(self.tokens, score, self._logprobs[: len(self.tokens)], self.reason)


def _gathered(flow: Flow, samples: list[_Sample]) -> Flow:
    """The flow, which emits into the samples."""
    with closing(flow), suppress(StopIteration):
        request = next(flow)
        while True:
            for emit in request.emit:
                samples[emit.sequence].take(emit)
            silent = replace(request, emit=())
            reply = Reply() if silent == Request() else (yield silent)
            stopped = frozenset(i for i, sample in enumerate(samples) if sample.reason is not None)
            request = flow.send(replace(reply, stopped=stopped))
    return ()
