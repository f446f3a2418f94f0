"""sdk, search: structured output: tokens that a JSON schema, a regular expression or a Lark grammar lets through."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from edgewise.errors import GenerationError, OptionError
from edgewise.extras import extras
from edgewise.search.protocol import FloatArray, Vocabulary
from edgewise.text.grammar import compile_json_schema, compile_lark, compile_regex, one_line
from edgewise.text.vocabulary import TokenizerVocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher


@dataclass(frozen=True)
class Grammar:
    """Keeps the text to a JSON schema (`{}`: any JSON), a regular expression or a Lark grammar, to its end.

    The end-of-sequence token is possible exactly where the text may end, and the only choice where it must; no other
    control token ever is. A text that is cut by a limit is not complete; its reason is the limit's.
    """

    name: ClassVar[str] = "grammar"
    json_schema: str | Mapping[str, Any] | None = None
    regex: str | None = None
    lark: str | None = None
    _bound: "_Bound | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = sum(text is not None for text in (self.json_schema, self.regex, self.lark))
        if given != 1:
            raise OptionError(f"a grammar is one of json_schema, regex and lark; {given} were given")

    def bind(self, vocabulary: Vocabulary) -> Self:
        if not isinstance(vocabulary, TokenizerVocabulary):
            raise OptionError("a grammar needs the tokenizer of a bundle")
        if not vocabulary.eos:
            raise OptionError("a grammar must be able to end, and the model has no end-of-sequence token")
        with extras():
            matcher = self._compile(vocabulary)
        made = replace(self)
        control = vocabulary.tokenizer.control.keys() - vocabulary.eos
        bound = _Bound(matcher, _scored(vocabulary.eos, vocabulary), _scored(control, vocabulary))
        object.__setattr__(made, "_bound", bound)
        return made

    def start(self, prompt: tuple[int, ...]) -> "LLMatcher | None":
        return self._known.matcher

    def advance(self, state: "LLMatcher | None", tokens: tuple[int, ...]) -> "LLMatcher | None":
        """A matcher that has moved on, a copy: it takes microseconds. None after a token that is not allowed."""
        if state is None:
            return None
        moved = state.deep_copy()
        taken = moved.try_consume_tokens(list(tokens))
        _check_error(moved)
        return moved if taken == len(tokens) else None

    def apply(self, state: "LLMatcher | None", logits: FloatArray) -> FloatArray:
        if state is None:  # a draft's token that is about to be taken back
            logits.fill(-np.inf)
            return logits
        bits = np.frombuffer(state.compute_bitmask(), np.uint8)
        _check_error(state)
        allowed = np.unpackbits(bits, count=len(logits), bitorder="little").view(np.bool_)
        allowed[self._known.control] = False
        allowed[self._known.eos] = state.is_accepting()
        np.copyto(logits, -np.inf, where=~allowed)
        return logits

    @property
    def _known(self) -> "_Bound":
        if self._bound is None:
            raise GenerationError("the grammar has no vocabulary; the runner gives it one, or bind()")
        return self._bound

    def _compile(self, vocabulary: TokenizerVocabulary) -> "LLMatcher":
        if self.regex is not None:
            return compile_regex(self.regex, vocabulary)
        if self.lark is not None:
            return compile_lark(self.lark, vocabulary)
        assert self.json_schema is not None
        return compile_json_schema(self.json_schema, vocabulary)


@dataclass(frozen=True)
class _Bound:
    """A grammar over the tokens of a bundle."""

    matcher: "LLMatcher"  # at its beginning
    eos: list[int]
    control: list[int]  # all others


def _check_error(matcher: "LLMatcher") -> None:
    if matcher.is_error():  # a limit: what a token may be is answered without errors
        raise GenerationError(f"the grammar is too complex to go on: {one_line(matcher.get_error())}")


def _scored(tokens: Iterable[int], vocabulary: TokenizerVocabulary) -> list[int]:
    return sorted(token for token in tokens if token < vocabulary.size)
