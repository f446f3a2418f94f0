"""sdk, search: tokens that may not come: bad words, suppressed tokens, and all but the allowed ones.

Bad words and suppressed tokens: as transformers' processors of these names.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import OptionError
from edgewise.search.bias import Bias, Biased, check_bound, check_tokens, spell
from edgewise.search.protocol import FloatArray, Vocabulary


@dataclass(frozen=True)
class BadWords(Biased):
    """Bans the last token of a word after its others: each text alone and with a blank before it, as it is spelled.

    Other spellings of the same text, in other tokens, are not found. The tokens that end a sequence are not banned.
    """

    name: ClassVar[str] = "bad_words"
    texts: tuple[str, ...] = ()
    sequences: tuple[tuple[int, ...], ...] = ()

    def bind(self, vocabulary: Vocabulary) -> Self:
        spelled = (spell(blank + text, vocabulary) for text in self.texts for blank in ("", " "))
        known = dict.fromkeys((*self.sequences, *spelled))
        ends = {(token,) for token in vocabulary.eos}
        bound = replace(self, texts=(), sequences=tuple(each for each in known if each not in ends))
        return bound.checked(vocabulary)

    def biases(self) -> Iterator[Bias]:
        return (Bias(tokens, -inf) for tokens in self.sequences)


@dataclass(frozen=True)
class SuppressTokens:
    """Bans tokens everywhere, or only as the first new one."""

    name: ClassVar[str] = "suppress_tokens"
    tokens: tuple[int, ...]
    begin: bool = False

    def bind(self, vocabulary: Vocabulary) -> Self:
        check_tokens(self.tokens, vocabulary.size)
        return self

    def start(self, prompt: tuple[int, ...]) -> bool:
        return True

    def advance(self, state: bool, tokens: tuple[int, ...]) -> bool:
        """Whether the next token is the first."""
        return state and not tokens

    def apply(self, state: bool, logits: FloatArray) -> FloatArray:
        if state or not self.begin:
            logits[list(self.tokens)] = -np.inf
        return logits


@dataclass(frozen=True)
class AllowedTokens:
    """Bans all tokens but these, and those that texts are spelled with; also the end, unless it is among them."""

    name: ClassVar[str] = "allowed_tokens"
    tokens: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.tokens or self.texts):
            raise OptionError("allowed_tokens is empty; give at least one token, or one text")

    def bind(self, vocabulary: Vocabulary) -> Self:
        tokens = {*self.tokens, *(token for text in self.texts for token in spell(text, vocabulary))}
        check_tokens(tokens, vocabulary.size)
        return replace(self, tokens=tuple(sorted(tokens)), texts=())

    def start(self, prompt: tuple[int, ...]) -> None:
        check_bound(self.name, self.texts)

    def advance(self, state: None, tokens: tuple[int, ...]) -> None: ...

    def apply(self, state: None, logits: FloatArray) -> FloatArray:
        kept = logits[self._ids]
        logits.fill(-np.inf)
        logits[self._ids] = kept
        return logits

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        return np.array(self.tokens, np.int64)
