"""sdk, search: what is added to the scores of tokens, of texts and of sequences of tokens.

Sequences: as transformers' SequenceBiasLogitsProcessor.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.processors import History
from edgewise.search.protocol import FloatArray, Vocabulary


@dataclass(frozen=True)
class Bias:
    """A number for the last of some tokens, which counts where the others come before it."""

    tokens: tuple[int, ...]
    bias: float

    def __post_init__(self) -> None:
        if not self.tokens:
            raise OptionError("a bias is for no tokens; give one or more")
        if math.isnan(self.bias) or self.bias == math.inf:
            raise OptionError(f"the bias of {list(self.tokens)} is {self.bias}; it must be a finite number, or -inf")


class Biased(ABC):
    """A processor that is nothing but biases; `texts` are those that `bind` has to look up first."""

    name: ClassVar[str]
    texts: Collection[str]

    @abstractmethod
    def biases(self) -> Iterable[Bias]: ...

    def __post_init__(self) -> None:
        self._completions  # noqa: B018  (checks them)

    def checked(self, vocabulary: Vocabulary) -> Self:
        """Raises OptionError for a token that the vocabulary does not have."""
        self._completions.check(vocabulary.size)
        return self

    def start(self, prompt: tuple[int, ...]) -> History:
        check_bound(self.name, self.texts)
        return History(prompt)

    def advance(self, state: History, tokens: tuple[int, ...]) -> History:
        return state.append(tokens)

    def apply(self, state: History, logits: FloatArray) -> FloatArray:
        return self._completions.add(state, logits)

    @cached_property
    def _completions(self) -> "Completions":
        return Completions(self.biases())


@dataclass(frozen=True)
class LogitBias(Biased):
    """Adds to scores: those of tokens, and of what completes a text or a sequence of tokens; -inf bans.

    A text is meant as the tokenizer spells it: most spell a word with the blank before it, so give " word".
    """

    name: ClassVar[str] = "logit_bias"
    tokens: Mapping[int, float] = field(default_factory=dict)
    texts: Mapping[str, float] = field(default_factory=dict)
    sequences: tuple[Bias, ...] = ()

    def bind(self, vocabulary: Vocabulary) -> Self:
        spelled = tuple(Bias(spell(text, vocabulary), bias) for text, bias in self.texts.items())
        bound = replace(self, texts={}, sequences=(*self.sequences, *spelled))
        return bound.checked(vocabulary)

    def biases(self) -> Iterator[Bias]:
        yield from (Bias((token,), bias) for token, bias in self.tokens.items())
        yield from self.sequences


class Completions:
    """Biases, looked up by what came before."""

    def __init__(self, biases: Iterable[Bias]) -> None:
        self._known: dict[tuple[int, ...], dict[int, float]] = {}  # before -> last token -> bias
        for each in biases:
            last = self._known.setdefault(each.tokens[:-1], {})
            last[each.tokens[-1]] = last.get(each.tokens[-1], 0.0) + each.bias
        self._lengths = sorted({len(before) for before in self._known})
        self._always = self._known.get((), {})
        self._tokens = np.array(list(self._always), np.int64)
        self._biases = np.array(list(self._always.values()), np.float32)

    def check(self, size: int) -> None:
        """Raises OptionError for a token that a vocabulary of this size does not have."""
        for before, last in self._known.items():
            check_tokens((*before, *last), size)

    def add(self, history: History, logits: FloatArray) -> FloatArray:
        logits[self._tokens] += self._biases
        for length in self._lengths:
            if 0 < length <= len(history):
                found = self._known.get(tuple(history.last(length).tolist()), {})
                for token, bias in found.items():
                    logits[token] += bias
        return logits


def spell(text: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The tokens of a text. Raises OptionError where there are none."""
    if not (tokens := vocabulary.encode(text)):
        raise OptionError(f"the text {text!r} has no tokens")
    return tokens


def check_tokens(tokens: Iterable[int], size: int) -> None:
    """Raises OptionError for a token that a vocabulary of this size does not have."""
    for token in tokens:
        if not 0 <= token < size:
            raise OptionError(f"token {token} does not exist: the vocabulary has {size}, from 0 on")


def check_bound(name: str, texts: object) -> None:
    """Raises OptionError where there are texts that nobody has looked up."""
    if texts:
        raise OptionError(f"{name} was given texts and no vocabulary; the runner gives it one, or bind()")
