"""sdk, search: what ends a sequence. Rules are independent: each says after every token whether it is over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from edgewise.errors import OptionError
from edgewise.search.bias import check_tokens
from edgewise.search.protocol import LogProb, Vocabulary
from edgewise.text.overlap import overlap


@dataclass(slots=True)
class Progress:
    """A sequence as its rules see it, after each token."""

    tokens: list[int]  # the new tokens, the last one included
    piece: str  # text that the last token added
    tail: str  # text that has not been handed out yet; `piece` is its end
    seconds: float  # since the generation began
    logprobs: Sequence[LogProb] = ()  # of these tokens, where somebody asked for them

    @property
    def logprob(self) -> float | None:
        """Of the last token, by the model's own scores; None where nobody asked for it."""
        return self.logprobs[-1].logprob if self.logprobs else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says. Characters are counted from the end of `Progress.tail`."""

    stop: bool = False
    hold: int = 0  # characters that may turn out not to belong to the text
    cut: int = 0  # when it stops: characters that do not belong to it
    keep: bool = True  # when it stops: whether the last token belongs to the sequence


GO_ON = Verdict()
STOP = Verdict(stop=True)


class StopRule(Protocol):
    """Ends sequences; it keeps no state of its own. Its name is the `finish_reason` of what it ends.

    A rule with a class variable `needs_logprobs = True` is told the log-probability of each token.
    """

    name: ClassVar[str]

    def check(self, progress: Progress) -> Verdict: ...


def needs_logprobs(rule: StopRule) -> bool:
    return bool(getattr(rule, "needs_logprobs", False))


@dataclass(frozen=True)
class Eos:
    """Ends a sequence before one of these tokens."""

    name: ClassVar[str] = "eos"
    tokens: frozenset[int]

    def bind(self, vocabulary: Vocabulary) -> Self:
        check_tokens(sorted(self.tokens), vocabulary.size)
        return self

    def check(self, progress: Progress) -> Verdict:
        if progress.tokens[-1] in self.tokens:
            return Verdict(stop=True, cut=len(progress.piece), keep=False)
        return GO_ON


@dataclass(frozen=True)
class StopStrings:
    """Ends a sequence where one of these texts begins, also when it spans several tokens.

    The tokens that spell it stay among the sequence's tokens; its text is cut.
    """

    name: ClassVar[str] = "stop"
    strings: tuple[str, ...]

    def __post_init__(self) -> None:
        if "" in self.strings:
            raise OptionError("a stop string is empty; it would end every text before it begins")

    def check(self, progress: Progress) -> Verdict:
        tail = progress.tail
        places = [place for string in self.strings if (place := tail.find(string)) >= 0]
        if places:
            return Verdict(stop=True, cut=len(tail) - min(places))
        return Verdict(hold=max((overlap(tail, string) for string in self.strings), default=0))


@dataclass(frozen=True)
class MaxTokens:
    """Ends a sequence after so many tokens."""

    name: ClassVar[str] = "length"
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise OptionError(f"count is {self.count}; it must be 1 or more")

    def check(self, progress: Progress) -> Verdict:
        return STOP if len(progress.tokens) >= self.count else GO_ON


@dataclass(frozen=True)
class TimeLimit:
    """Ends a sequence at its first token after so many seconds."""

    name: ClassVar[str] = "time"
    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise OptionError(f"seconds is {self.seconds}; it must be more than 0")

    def check(self, progress: Progress) -> Verdict:
        return STOP if progress.seconds >= self.seconds else GO_ON


@dataclass(frozen=True)
class Floor:
    """Ends a sequence before a token that the model itself held less probable than this."""

    name: ClassVar[str] = "floor"
    needs_logprobs: ClassVar[bool] = True
    probability: float

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise OptionError(f"probability is {self.probability}; it must be above 0 and at most 1")

    def check(self, progress: Progress) -> Verdict:
        if progress.logprob is None or progress.logprob >= math.log(self.probability):
            return GO_ON
        return Verdict(stop=True, cut=len(progress.piece), keep=False)


@dataclass(frozen=True)
class Loop:
    """Ends a sequence that goes round in circles: its last `length` tokens, at least, are one cycle over and over."""

    name: ClassVar[str] = "loop"
    period: int = 64  # tokens of the longest cycle that is looked for
    count: int = 4  # times that it must have been gone round
    length: int = 64  # so that a row of equal tokens, as in a table, is no loop at once

    def __post_init__(self) -> None:
        for name, least in (("period", 1), ("count", 2), ("length", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be {least} or more")

    def check(self, progress: Progress) -> Verdict:
        tokens = progress.tokens
        last = tokens[-1]
        for period in range(1, min(self.period, len(tokens) // self.count) + 1):
            if tokens[-1 - period] == last and self._repeats(tokens, period):
                return STOP
        return GO_ON

    def _repeats(self, tokens: list[int], period: int) -> bool:
        span = max(self.count * period, self.length)
        return len(tokens) >= span and tokens[-span:-period] == tokens[period - span :]
