"""sdk, search: penalties for tokens that were there before.

Repetition: CTRL (arXiv 1909.05858), as transformers computes it. Presence and frequency: as OpenAI's API defines them.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.processors import History
from edgewise.search.protocol import FloatArray


@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes tokens of the prompt and the text so far less probable: divides scores above 0, multiplies others.

    A token counts once, however often it is there.
    """

    name: ClassVar[str] = "repetition_penalty"
    penalty: float = 1.0  # above 1 discourages, below 1 encourages
    window: int = 0  # so many last tokens count; 0: all

    def __post_init__(self) -> None:
        if not (math.isfinite(self.penalty) and self.penalty > 0):
            raise OptionError(f"{self.name} is {self.penalty}; it must be above 0 (1: none)")
        check_window(self.name, self.window)

    def start(self, prompt: tuple[int, ...]) -> History:
        return History(prompt)

    def advance(self, state: History, tokens: tuple[int, ...]) -> History:
        return state.append(tokens)

    def apply(self, state: History, logits: FloatArray) -> FloatArray:
        tokens = state.last(self.window)
        found = logits[tokens]
        with np.errstate(over="ignore"):  # a very low score is a ban, and stays one
            logits[tokens] = np.where(found < 0, found * self.penalty, found / self.penalty)
        return logits


@dataclass(frozen=True)
class PresencePenalty:
    """Subtracts a constant from the scores of tokens in the text so far (not the prompt), once each."""

    name: ClassVar[str] = "presence_penalty"
    penalty: float = 0.0
    window: int = 0  # so many last tokens count; 0: all

    def __post_init__(self) -> None:
        _check_finite(self.name, self.penalty)
        check_window(self.name, self.window)

    def start(self, prompt: tuple[int, ...]) -> History:
        return History()

    def advance(self, state: History, tokens: tuple[int, ...]) -> History:
        return state.append(tokens)

    def apply(self, state: History, logits: FloatArray) -> FloatArray:
        tokens = state.last(self.window)
        logits[tokens] = logits[tokens] - self.penalty  # read before written: repeats count once
        return logits


@dataclass(frozen=True)
class FrequencyPenalty:
    """Subtracts a constant from a token's score for each time that it is in the text so far (not the prompt)."""

    name: ClassVar[str] = "frequency_penalty"
    penalty: float = 0.0
    window: int = 0  # so many last tokens count; 0: all

    def __post_init__(self) -> None:
        _check_finite(self.name, self.penalty)
        check_window(self.name, self.window)

    def start(self, prompt: tuple[int, ...]) -> History:
        return History()

    def advance(self, state: History, tokens: tuple[int, ...]) -> History:
        return state.append(tokens)

    def apply(self, state: History, logits: FloatArray) -> FloatArray:
        np.subtract.at(logits, state.last(self.window), np.float32(self.penalty))
        return logits


def check_window(name: str, window: int) -> None:
    """Raises OptionError for a window that is none."""
    if window < 0:
        raise OptionError(f"the window of {name} is {window}; it must be 0 (all tokens) or above")


def _check_finite(name: str, penalty: float) -> None:
    if not math.isfinite(penalty):
        raise OptionError(f"{name} is {penalty}; it must be a finite number (0: none)")
