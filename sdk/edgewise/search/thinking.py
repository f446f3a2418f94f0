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
    tail: tuple[int, ...] = ()
    forced: int = 0  # tokens of the ending that were already forced


@dataclass(frozen=True)
class ThinkingBudget:
    """Ends a thought after so many tokens, by `ending`, which has to close it.

    A thought that the prompt has opened counts as one; thoughts after the first are bounded by what is left.
    """

    name: ClassVar[str] = "thinking_budget"
    tokens: int
    open: str = "<think>"
    close: str = "</think>"
    ending: str = ""  # what is forced; by default the closing tag
    _tags: tuple[tuple[int, ...], ...] = field(default=(), init=False, repr=False, compare=False)  # open, close, ending

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise OptionError(f"{self.name} is {self.tokens}; it must be 0 (no thought) or more tokens")
        if self.ending and self.close not in self.ending:
            raise OptionError(f"{self.name}: the ending {self.ending!r} does not have {self.close!r}, which closes it")

    def bind(self, vocabulary: Vocabulary) -> Self:
        texts = (self.open, self.close, self.ending or self.close)
        made = replace(self)
        object.__setattr__(made, "_tags", tuple(vocabulary.encode(text) for text in texts))
        return made

    def start(self, prompt: tuple[int, ...]) -> Thought:
        if not self._tags:
            raise GenerationError(f"{self.name} has not been bound to a vocabulary")
        opened, closed = (_last(prompt, tag) for tag in self._tags[:2])
        return Thought(thinking=opened > closed, tail=prompt[-self._longest :])

    def advance(self, state: Thought, tokens: tuple[int, ...]) -> Thought:
        for token in tokens:
            state = self._after(state, token)
        return state

    def apply(self, state: Thought, logits: FloatArray) -> FloatArray:
        ending = self._tags[2]
        if state.forced == 0 and not (state.thinking and state.spent >= self.tokens):
            return logits
        forced = ending[state.forced]
        score = logits[forced]
        logits.fill(-np.inf)
        logits[forced] = score if np.isfinite(score) else 0.0
        return logits

    @property
    def _longest(self) -> int:
        return max(map(len, self._tags))

    def _after(self, state: Thought, token: int) -> Thought:
        opening, closing, ending = self._tags
        tail = (*state.tail, token)[-self._longest :]
        due = state.forced > 0 or (state.thinking and state.spent >= self.tokens)
        if due and token == ending[state.forced]:
            done = state.forced + 1 == len(ending)
            return Thought(not done, state.spent, tail, 0 if done else state.forced + 1)
        if state.thinking:
            return replace(state, thinking=tail[-len(closing) :] != closing, spent=state.spent + 1, tail=tail)
        return replace(state, thinking=tail[-len(opening) :] == opening, tail=tail)


def _last(tokens: tuple[int, ...], tag: tuple[int, ...]) -> int:
    """Where a tag is found last; -1 where it is not."""
    for start in range(len(tokens) - len(tag), -1, -1):
        if tokens[start : start + len(tag)] == tag:
            return start
    return -1
