"""plugins, vocabulary: the kinds of models in a tokenizer.json, and which of their tokens need which others.

A text whose tokens are all kept is encoded as before:

    BPE        a token comes of merges of its own characters, whatever stands around it, and these merges stay
    Unigram    the best of all segmentations is the best of those that are left; the worst score stays, for others
               are derived from it
    WordPiece  the longest token that fits is the longest of those that are left

What spells any text stays always: the 256 bytes, or else every token of one character.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

from edgewise.errors import GraphError

BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))

Written = Mapping[str, Any]  # "model" of a tokenizer.json


class Kind(Protocol):
    """The model of a tokenizer, as its file writes it."""

    def always(self) -> set[str]:
        """Tokens that stay whatever the text: without them some text would not be encoded, or other texts anew."""

    def parts(self, token: str) -> Iterator[str]:
        """The tokens through which encoding comes to this one."""

    def keep(self, tokens: Sequence[str]) -> dict[str, Any]:
        """The model with these tokens, numbered from 0 in their order, and no others."""


@dataclass(frozen=True)
class Bpe:
    """Byte-pair encoding: of bytes written as characters, or of characters with bytes for those that are unknown."""

    written: Written

    def __post_init__(self) -> None:
        for key in ("continuing_subword_prefix", "end_of_word_suffix"):
            if self.written.get(key):
                raise GraphError(f"tokenizer.json: BPE with {key} = {self.written[key]!r} is not known to prune")

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {(first, second): rank for rank, (first, second) in enumerate(self.written["merges"])}

    def always(self) -> set[str]:
        spelled = spelling(self.written["vocab"], bytes_too=bool(self.written.get("byte_fallback")))
        return spelled | unknown(self.written)

    def parts(self, token: str) -> Iterator[str]:
        pieces = list(token)
        yield from (piece for piece in pieces if piece in self.written["vocab"])
        while len(pieces) > 1:
            ranks = [self._ranks.get(pair) for pair in pairwise(pieces)]
            known = [(rank, at) for at, rank in enumerate(ranks) if rank is not None]
            if not known:
                return
            _, at = min(known)
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
            yield pieces[at]

    def keep(self, tokens: Sequence[str]) -> dict[str, Any]:
        vocabulary = {token: number for number, token in enumerate(tokens)}
        merges = [
            [first, second]
            for first, second in self.written["merges"]
            if first in vocabulary and second in vocabulary and first + second in vocabulary
        ]
        return {**self.written, "vocab": vocabulary, "merges": merges}


@dataclass(frozen=True)
class Unigram:
    """A unigram language model: pieces with their scores."""

    written: Written

    @cached_property
    def _scores(self) -> dict[str, float]:
        return dict(self.written["vocab"])

    def always(self) -> set[str]:
        lowest = min(self._scores, key=lambda piece: self._scores[piece])
        number = self.written.get("unk_id")
        blank = set() if number is None else {self.written["vocab"][number][0]}
        return spelling(self._scores, bytes_too=bool(self.written.get("byte_fallback"))) | {lowest} | blank

    def parts(self, token: str) -> Iterator[str]:
        return iter(())

    def keep(self, tokens: Sequence[str]) -> dict[str, Any]:
        number = self.written.get("unk_id")
        unk = None if number is None else tokens.index(self.written["vocab"][number][0])
        return {**self.written, "vocab": [[token, self._scores[token]] for token in tokens], "unk_id": unk}


@dataclass(frozen=True)
class WordPiece:
    """The longest token that fits, again and again; those within a word have a prefix."""

    written: Written

    def always(self) -> set[str]:
        prefix = self.written["continuing_subword_prefix"]
        within = {token for token in self.written["vocab"] if len(token.removeprefix(prefix)) == 1}
        return spelling(self.written["vocab"], bytes_too=False) | within | unknown(self.written)

    def parts(self, token: str) -> Iterator[str]:
        return iter(())

    def keep(self, tokens: Sequence[str]) -> dict[str, Any]:
        return {**self.written, "vocab": {token: number for number, token in enumerate(tokens)}}


KINDS: Mapping[str, Callable[[Written], Kind]] = {"BPE": Bpe, "Unigram": Unigram, "WordPiece": WordPiece}


def kind_of(written: Written) -> Kind:
    """Raises GraphError for a kind that is not known."""
    if make := KINDS.get(str(written.get("type"))):
        return make(written)
    raise GraphError(
        f"tokenizer.json: a model of the kind {written.get('type')!r} is not known to prune; known: {', '.join(KINDS)}"
    )


def spelling(tokens: Mapping[str, Any], *, bytes_too: bool) -> set[str]:
    """Tokens that spell any text that can be encoded: those of bytes, or where these are not all there, characters."""
    if bytes_too and tokens.keys() >= BYTES:
        return set(BYTES)
    return {token for token in tokens if len(token) == 1}


def unknown(written: Written) -> set[str]:
    """The token for what cannot be encoded, where there is one."""
    token = written.get("unk_token")
    return {token} if token is not None and token in written["vocab"] else set()
