"""sdk, search: bounds on how long a model thinks: a thought goes on until the least is spent, and ends with the most.

Budget forcing (Muennighoff et al., s1, arXiv 2501.19393): a thought that would end too early is kept open, with a word
such as "Wait" if wanted; one that takes too long is closed by force.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self
from weakref import WeakKeyDictionary

import numpy as np

from edgewise.errors import GenerationError, OptionError
from edgewise.search.protocol import FloatArray, Vocabulary
from edgewise.text.tokenizer import Tokenizer
from edgewise.text.vocabulary import TokenizerVocabulary

_KNOWN: WeakKeyDictionary[Tokenizer, dict[str, tuple[tuple[int, str], ...]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Thought:
    """Where a text is: within a thought or not, for how many tokens, and what it ended with."""

    thinking: bool = False
    spent: int = 0
    tail: str = ""  # may be the beginning of a tag
    forced: int = 0  # tokens of the ending that were already forced
    insisted: int = 0  # tokens of `more` that were
    place: int = 0  # which tokens have led here, as a hash


@dataclass(frozen=True, slots=True)
class _Bound:
    """What a vocabulary makes of the texts."""

    vocabulary: Vocabulary
    ending: tuple[int, ...]
    more: tuple[int, ...]
    closing: tuple[tuple[int, str], ...]  # tokens that may complete the closing tag, with their texts
    insisted: set[int] = field(default_factory=set)  # places where `more` was begun: scores depend on the place alone


@dataclass(frozen=True)
class ThinkingBudget:
    """Ends a thought after so many tokens, by `ending`, which has to close it; and not before `minimum` of them.

    Until then what would end it is banned, or with `more` replaced: where the model would close its thought, it is
    told "Wait". A thought that the prompt has opened counts as one; thoughts after the first are bounded by what is
    left. Tags are found in the text, however it is cut into tokens.
    """

    name: ClassVar[str] = "thinking_budget"
    tokens: int
    open: str = "<think>"
    close: str = "</think>"
    ending: str = ""  # what is forced; by default the closing tag
    minimum: int = 0
    more: str = ""  # what is said instead of an end that comes too early; by default what else is probable
    _bound: _Bound | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise OptionError(f"{self.name} is {self.tokens}; it must be 0 (no thought) or more tokens")
        if self.ending and self.close not in self.ending:
            raise OptionError(f"{self.name}: the ending {self.ending!r} does not have {self.close!r}, which closes it")
        if not 0 <= self.minimum <= self.tokens:
            raise OptionError(f"{self.name}: minimum is {self.minimum}; it must be from 0 to tokens ({self.tokens})")
        if self.more and not self.minimum:
            raise OptionError(f"{self.name}: more is said where a thought ends before its minimum; give one")
        if self.close in self.more:
            raise OptionError(f"{self.name}: more has {self.close!r} in it, which would close the thought")

    def bind(self, vocabulary: Vocabulary) -> Self:
        made = replace(self)
        ending = vocabulary.encode_control(self.ending or self.close)
        closing = _closing(self.close, vocabulary) if self.minimum else ()
        object.__setattr__(made, "_bound", _Bound(vocabulary, ending, vocabulary.encode(self.more), closing))
        return made

    def start(self, prompt: tuple[int, ...]) -> Thought:
        return self._read(Thought(place=hash(prompt)), self._known.vocabulary.decode(prompt))

    def advance(self, state: Thought, tokens: tuple[int, ...]) -> Thought:
        for token in tokens:
            state = self._after(state, token)
        return state

    def apply(self, state: Thought, logits: FloatArray) -> FloatArray:
        if self._is_due(state):
            _force(logits, self._known.ending[state.forced])
        elif state.thinking and (state.insisted or state.spent < self.minimum):
            self._keep_open(state, logits)
        return logits

    @property
    def _known(self) -> _Bound:
        if self._bound is None:
            raise GenerationError(f"{self.name} has not been bound to a vocabulary")
        return self._bound

    def _is_due(self, state: Thought) -> bool:
        return state.forced > 0 or (state.thinking and state.spent >= self.tokens)

    def _keep_open(self, state: Thought, logits: FloatArray) -> None:
        known = self._known
        if state.insisted:
            _force(logits, known.more[state.insisted])
            return
        ends = [token for token, text in known.closing if token < len(logits) and self.close in state.tail + text]
        ends += [token for token in known.vocabulary.eos if token < len(logits)]
        if known.more and int(logits.argmax()) in ends:
            known.insisted.add(state.place)
            _force(logits, known.more[0])
        else:
            logits[ends] = -np.inf

    def _after(self, state: Thought, token: int) -> Thought:
        known = self._known
        forced = state.forced + 1 if self._is_due(state) and token == known.ending[state.forced] else 0
        insisted = 0
        if state.insisted or state.place in known.insisted:
            insisted = state.insisted + 1 if token == known.more[state.insisted] else 0
        return replace(
            self._read(state, known.vocabulary.decode((token,))),
            spent=state.spent + (state.thinking and not forced),
            forced=forced % len(known.ending),
            insisted=insisted % max(1, len(known.more)),
            place=hash((state.place, token)),
        )

    def _read(self, state: Thought, text: str) -> Thought:
        """The state after a text: each tag that it completes opens or closes a thought."""
        thinking, rest = state.thinking, state.tail + text
        while (place := rest.find(tag := self.close if thinking else self.open)) >= 0:
            thinking, rest = not thinking, rest[place + len(tag) :]
        return replace(state, thinking=thinking, tail=rest[-max(len(self.open), len(self.close)) :])


def _force(logits: FloatArray, token: int) -> None:
    score = logits[token]
    logits.fill(-np.inf)
    logits[token] = score if np.isfinite(score) else 0.0


def _closing(close: str, vocabulary: Vocabulary) -> tuple[tuple[int, str], ...]:
    """Tokens in which the closing tag may end, with their texts; they are looked for once in a tokenizer."""
    if not isinstance(vocabulary, TokenizerVocabulary):
        return _ends(close, range(vocabulary.size), vocabulary)
    known = _KNOWN.setdefault(vocabulary.tokenizer, {})
    if close not in known:
        tokens = vocabulary.tokenizer.vocabulary.items()
        plain = close[-1].isascii() and close[-1].isprintable() and not close[-1].isspace()  # a file writes it as it is
        known[close] = _ends(close, (token for token, text in tokens if not plain or close[-1] in text), vocabulary)
    return known[close]


def _ends(close: str, tokens: Iterable[int], vocabulary: Vocabulary) -> tuple[tuple[int, str], ...]:
    """Those that begin with the end of the tag, or hold all of it."""
    ends = tuple(close[start:] for start in range(len(close)))
    texts = ((token, vocabulary.decode((token,))) for token in tokens)
    return tuple((token, text) for token, text in texts if text.startswith(ends) or close in text)
