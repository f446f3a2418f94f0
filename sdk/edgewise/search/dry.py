"""sdk, search: DRY, don't repeat yourself: as llama.cpp defines it.

https://github.com/oobabooga/text-generation-webui/pull/5677 (the proposal), llama.cpp's `llama_sampler_dry`.
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import OptionError
from edgewise.search.breakers import Breakers
from edgewise.search.penalties import check_window
from edgewise.search.processors import History
from edgewise.search.protocol import FloatArray, Vocabulary
from edgewise.search.suffixes import grown, suffixes

HIGHEST = 60.0  # the log of a penalty at most: float32 holds it many times over, and nothing stands against it


@dataclass(frozen=True, slots=True)
class Seen:
    """The prompt and the text so far, and for each place but the last how many tokens up to it the text ends with."""

    history: History
    repeats: NDArray[np.int32]  # [tokens - 1]
    unbroken: int  # tokens since a sequence breaker
    tail: str = ""  # text in which a breaker may have begun


@dataclass(frozen=True)
class Dry:
    """Makes tokens less probable that go on repeating what was there before, the more the longer it is.

    What would make a repetition of `allowed_length` tokens or more one token longer loses
    `multiplier * base ** (length - allowed_length)`. A repetition never reaches over a breaker, and tokens that hold
    one are not penalized.
    """

    name: ClassVar[str] = "dry"
    multiplier: float = 0.8
    base: float = 1.75
    allowed_length: int = 2
    window: int = 0  # so many last tokens count; 0: all
    breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    _breakers: Breakers | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.multiplier < math.inf:
            raise OptionError(f"the multiplier of dry is {self.multiplier}; it must be 0 (none) or above")
        if not 1 <= self.base < math.inf:
            raise OptionError(f"the base of dry is {self.base}; it must be 1 or above")
        if self.allowed_length < 1:
            raise OptionError(f"the allowed_length of dry is {self.allowed_length}; it must be 1 or above")
        if "" in self.breakers:
            raise OptionError("a breaker of dry is an empty text; it would be everywhere")
        check_window(self.name, self.window)

    def bind(self, vocabulary: Vocabulary) -> Self:
        bound = replace(self)
        object.__setattr__(bound, "_breakers", Breakers(self.breakers, vocabulary))
        return bound

    def start(self, prompt: tuple[int, ...]) -> Seen:
        if self.breakers and self._breakers is None:
            raise OptionError("dry was given breakers and no vocabulary; the runner gives it one, or bind()")
        return self._follow(Seen(History(prompt), suffixes(prompt), 0), prompt)

    def advance(self, state: Seen, tokens: tuple[int, ...]) -> Seen:
        repeats = state.repeats
        history = state.history
        for token in tokens:
            repeats = grown(repeats, history.tokens == token)
            history = history.append((token,))
        return self._follow(replace(state, history=history, repeats=repeats), tokens)

    def apply(self, state: Seen, logits: FloatArray) -> FloatArray:
        tokens = state.history.last(self.window)
        reach = min(state.unbroken, len(tokens))
        if len(tokens) <= self.allowed_length or reach < self.allowed_length:
            return logits
        repeats = state.repeats[len(state.repeats) - len(tokens) + 1 :]
        repeats = np.minimum(np.minimum(repeats, np.arange(1, len(tokens))), reach)
        places = np.flatnonzero(repeats >= self.allowed_length)
        longest: dict[int, int] = {}
        for token, length in zip(tokens[places + 1].tolist(), repeats[places].tolist(), strict=True):
            longest[token] = max(length, longest.get(token, 0))
        for token, length in longest.items():
            if self._breakers is None or not self._breakers.holds_one(token):
                logits[token] -= self._penalty(length)
        return logits

    def _penalty(self, length: int) -> float:
        if not self.multiplier:
            return 0.0
        return math.exp(min(HIGHEST, math.log(self.multiplier) + (length - self.allowed_length) * math.log(self.base)))

    def _follow(self, seen: Seen, tokens: tuple[int, ...]) -> Seen:
        """With what new tokens say about breakers."""
        unbroken, tail = seen.unbroken, seen.tail
        for token in tokens:
            broken, tail = (False, "") if self._breakers is None else self._breakers.follow(tail, token)
            unbroken = 0 if broken else unbroken + 1
        return replace(seen, unbroken=unbroken, tail=tail)
