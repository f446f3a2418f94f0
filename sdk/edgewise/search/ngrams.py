"""sdk, search: no n-gram twice, as transformers computes it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.processors import History
from edgewise.search.protocol import FloatArray


@dataclass(frozen=True)
class NoRepeatNgram:
    """Bans tokens that would complete so many tokens in a row which the prompt or the text has already."""

    name: ClassVar[str] = "no_repeat_ngram"
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"the size of an n-gram is {self.size}; it must be 1 or more")

    def start(self, prompt: tuple[int, ...]) -> History:
        return History(prompt)

    def advance(self, state: History, tokens: tuple[int, ...]) -> History:
        return state.append(tokens)

    def apply(self, state: History, logits: FloatArray) -> FloatArray:
        tokens = state.tokens
        ends = len(tokens) - self.size + 1  # n-grams so far
        if ends < 1:
            return logits
        begun = np.ones(ends, np.bool_)  # [n-grams]: those that begin as the text ends
        for place in range(self.size - 1):
            begun &= tokens[place : place + ends] == tokens[ends + place]
        logits[tokens[self.size - 1 :][begun]] = -np.inf
        return logits
