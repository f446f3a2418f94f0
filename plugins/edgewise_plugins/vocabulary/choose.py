"""plugins, vocabulary: which tokens stay: those seen, those that spell any text, control tokens, and what they need."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgewise.errors import GraphError
from edgewise.text.tokenizer import Tokenizer
from edgewise_plugins.vocabulary.kinds import Kind, kind_of


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer, and those of a model: `rows`, often more."""

    tokenizer: Tokenizer
    rows: int

    @cached_property
    def written(self) -> dict[str, Any]:
        """What the file of the tokenizer says, in the newest form of it."""
        data: dict[str, Any] = json.loads(self.tokenizer.serialize())
        return data

    @cached_property
    def kind(self) -> Kind:
        return kind_of(self.written["model"])

    @cached_property
    def texts(self) -> dict[int, str]:
        return self.tokenizer.vocabulary

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {text: number for number, text in self.texts.items()}

    def seen(self, passages: Iterable[str]) -> set[int]:
        """The tokens of some texts."""
        found: set[int] = set()
        for passage in passages:
            found.update(self.tokenizer.encode(passage))
        return found

    def choose(self, seen: Collection[int], named: Collection[int], *, multiple: int) -> np.ndarray:
        """Tokens that stay, int64 in ascending order: as many as a multiple says.

        `named` are those that a configuration names. What is left to a multiple goes to the tokens that come first:
        those that were merged first, as a rule the most frequent ones. Raises GraphError where a token that has to
        stay is none of the model.
        """
        added = {token["id"] for token in self.written["added_tokens"]}
        kept = {*seen, *named, *added, *(self._numbers[text] for text in self.kind.always())}
        for number in sorted(kept - added):
            kept |= self._parts(number)
        if (largest := max(kept)) >= self.rows:
            raise GraphError(
                f"token {largest}, {self.texts.get(largest, '')!r}, has to stay, and the model has no row for it: "
                f"it has {self.rows:,}"
            )
        room = min(-(-len(kept) // multiple) * multiple, self.rows) - len(kept)
        for number in self._others(kept):
            more = {number, *self._parts(number)} - kept
            if len(more) <= room:
                kept |= more
                room -= len(more)
            if not room:
                break
        return np.array(sorted(kept), np.int64)

    def _others(self, kept: Collection[int]) -> Iterator[int]:
        """Tokens that need not stay, and rows of the model that are no tokens, in order."""
        return (number for number in range(self.rows) if number not in kept)

    def _parts(self, number: int) -> set[int]:
        return {self._numbers[part] for part in self.kind.parts(self.texts.get(number, ""))}
