"""sdk, search: rules for the length: none that is too short, and an end that becomes ever more probable.

As transformers' MinLength, MinNewTokensLength and ExponentialDecayLengthPenalty.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.bias import check_tokens
from edgewise.search.processors import BANNED
from edgewise.search.protocol import FloatArray, Vocabulary

HIGHEST = 60.0  # the log of what a score is multiplied by at most: float32 holds it, and nothing stands against it


class Length(NamedTuple):
    """How many tokens there are."""

    prompt: int
    new: int = 0


@dataclass(frozen=True)
class MinLength:
    """Bans the tokens that end a sequence while it is too short."""

    name: ClassVar[str] = "min_length"
    new_tokens: int = 0
    tokens: int = 0  # of the prompt and the sequence together
    eos: tuple[int, ...] | None = None  # None: those of the bundle

    def __post_init__(self) -> None:
        if min(self.new_tokens, self.tokens) < 0:
            raise OptionError(f"min_length is {min(self.new_tokens, self.tokens)}; it must be 0 or above")

    def bind(self, vocabulary: Vocabulary) -> Self:
        return replace(self, eos=_ends(self.eos, vocabulary))

    def start(self, prompt: tuple[int, ...]) -> Length:
        _check_ends(self.name, self.eos)
        return Length(len(prompt))

    def advance(self, state: Length, tokens: tuple[int, ...]) -> Length:
        return Length(state.prompt, state.new + len(tokens))

    def apply(self, state: Length, logits: FloatArray) -> FloatArray:
        if state.new < self.new_tokens or sum(state) < self.tokens:
            logits[list(self.eos or ())] = -np.inf
        return logits


@dataclass(frozen=True)
class LengthDecay:
    """Raises the scores of the tokens that end a sequence, by a factor that grows with each token after `begin`."""

    name: ClassVar[str] = "length_decay"
    begin: int  # new tokens
    factor: float
    eos: tuple[int, ...] | None = None  # None: those of the bundle

    def __post_init__(self) -> None:
        if self.begin < 0:
            raise OptionError(f"length_decay begins at {self.begin}; it must be 0 new tokens or more")
        if not 0 < self.factor < math.inf:
            raise OptionError(f"the factor of length_decay is {self.factor}; it must be above 0 (1: none)")

    def bind(self, vocabulary: Vocabulary) -> Self:
        return replace(self, eos=_ends(self.eos, vocabulary))

    def start(self, prompt: tuple[int, ...]) -> int:
        _check_ends(self.name, self.eos)
        return 0

    def advance(self, state: int, tokens: tuple[int, ...]) -> int:
        """New tokens so far."""
        return state + len(tokens)

    def apply(self, state: int, logits: FloatArray) -> FloatArray:
        if state > self.begin:
            ends = [token for token in self.eos or () if logits[token] > BANNED]
            growth = math.exp(min(HIGHEST, (state - self.begin) * math.log(self.factor))) - 1
            logits[ends] += np.abs(logits[ends]) * np.float32(growth)
        return logits


def _ends(eos: tuple[int, ...] | None, vocabulary: Vocabulary) -> tuple[int, ...]:
    if eos is None:
        return tuple(sorted(token for token in vocabulary.eos if token < vocabulary.size))
    check_tokens(eos, vocabulary.size)
    return eos


def _check_ends(name: str, eos: tuple[int, ...] | None) -> None:
    if eos is None:
        raise OptionError(f"{name} needs the tokens that end a sequence; the runner gives them, or give it eos")
