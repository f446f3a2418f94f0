"""sdk, search: a bound on how long a model thinks: when its budget is spent, the thought is closed for it."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from edgewise.errors import GenerationError, OptionError
from edgewise.search.protocol import FloatArray, Vocabulary


@dataclass(frozen=True, slots=True)
class Thought:
    """Where a text is: within a thought or not, for how many tokens, and what it ended with."""

    thinking: bool = False
    spent: int = 0
    tail: str = ""  # may be the beginning of a tag
    forced: int = 0  # tokens of the ending that were already forced


@dataclass(frozen=True)
class ThinkingBudget:
    """Ends a thought after so many tokens, by `ending`, which has to close it.

    A thought that the prompt has opened counts as one; thoughts after the first are bounded by what is left. Tags are
    found in the text, however it is cut into tokens.
    """

    name: ClassVar[str] = "thinking_budget"
    tokens: int
    open: str = "<think>"
    close: str = "</think>"
    ending: str = ""  # what is forced; by default the closing tag
    _vocabulary: Vocabulary | None = field(default=None, init=False, repr=False, compare=False)
    _ending: tuple[int, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise OptionError(f"{self.name} is {self.tokens}; it must be 0 (no thought) or more tokens")
        if self.ending and self.close not in self.ending:
            raise OptionError(f"{self.name}: the ending {self.ending!r} does not have {self.close!r}, which closes it")

    def bind(self, vocabulary: Vocabulary) -> Self:
        made = replace(self)
        object.__setattr__(made, "_vocabulary", vocabulary)
        object.__setattr__(made, "_ending", vocabulary.encode_control(self.ending or self.close))
        return made

    def start(self, prompt: tuple[int, ...]) -> Thought:
        return self._read(Thought(), self._text(prompt))

    def advance(self, state: Thought, tokens: tuple[int, ...]) -> Thought:
        for token in tokens:
            state = self._after(state, token)
        return state

    def apply(self, state: Thought, logits: FloatArray) -> FloatArray:
        if self._is_due(state):
            forced = self._ending[state.forced]
            score = logits[forced]
            logits.fill(-np.inf)
            logits[forced] = score if np.isfinite(score) else 0.0
        return logits

    def _is_due(self, state: Thought) -> bool:
        return state.forced > 0 or (state.thinking and state.spent >= self.tokens)

    def _after(self, state: Thought, token: int) -> Thought:
        forced = state.forced + 1 if self._is_due(state) and token == self._ending[state.forced] else 0
        read = self._read(state, self._text((token,)))
        return replace(read, spent=state.spent + (state.thinking and not forced), forced=forced % len(self._ending))

    def _read(self, state: Thought, text: str) -> Thought:
        """The state after a text: each tag that it completes opens or closes a thought."""
        thinking, rest = state.thinking, state.tail + text
        while (place := rest.find(tag := self.close if thinking else self.open)) >= 0:
            thinking, rest = not thinking, rest[place + len(tag) :]
        return replace(state, thinking=thinking, tail=rest[-max(len(self.open), len(self.close)) :])

    def _text(self, tokens: tuple[int, ...]) -> str:
        if self._vocabulary is None:
            raise GenerationError(f"{self.name} has not been bound to a vocabulary")
        return self._vocabulary.decode(tokens)
