"""sdk, text: the tokenizer of a bundle: what a user types never becomes a control token."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TypeVar

import tokenizers

from edgewise.errors import BundleError, EdgewiseError, GenerationError
from edgewise.text.reasoning import TAG_TEXTS

FILE_NAME = "tokenizer.json"
T = TypeVar("T")


@dataclass(frozen=True)
class Pieces:
    """A text as tokens, each with where it is in the text: characters `(start, end)`."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    special: tuple[bool, ...]  # put there by the tokenizer, not by the text
    words: tuple[int | None, ...]  # the number of the word that it is of, where the tokenizer has words

    def cut(self, length: int) -> "Pieces":
        """The first tokens, and what the tokenizer puts at the end; `length` in all."""
        end = self.special[::-1].index(False)  # tokens that end every text
        kept = [*range(max(0, length - end)), *range(len(self.ids) - end, len(self.ids))][:length]

        def take(field: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(field[number] for number in kept)

        return Pieces(take(self.ids), take(self.offsets), take(self.special), take(self.words))


class Tokenizer:
    """Text to tokens and back. Control tokens are those that the tokenizer's file marks as special."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = Lock()  # the library's own object cannot be set and used at the same time
        tokenizer.no_truncation()
        tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder()
        self.control = {token: added[token].content for token in sorted(added) if added[token].special}
        self.silent = frozenset(token for token, text in self.control.items() if text not in TAG_TEXTS)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of a bundle. Raises BundleError."""
        path = folder / FILE_NAME
        if not path.is_file():
            raise BundleError(f"{path} is missing: the bundle has no tokenizer")
        with _guarded(BundleError, str(path)):
            return cls(tokenizers.Tokenizer.from_file(str(path)))

    @property
    def vocabulary(self) -> dict[int, str]:
        """Every token with its text as the file writes it, in order."""
        with self._lock:
            return dict(sorted((token, text) for text, token in self._tokenizer.get_vocab(True).items()))

    @cached_property
    def fingerprint(self) -> str:
        """The same for tokenizers to which every token means the same."""
        return sha256(repr(self.vocabulary).encode()).hexdigest()

    def encode(self, text: str) -> tuple[int, ...]:
        """A text as a user writes it, with what the tokenizer puts around one (a first token, often).

        What looks like a control token in it is text. Raises GenerationError for text that is not valid Unicode.
        """
        return tuple(self._encode(text, control=False, around=True).ids)

    def encode_within(self, text: str) -> tuple[int, ...]:
        """A text in the midst of another one: as `encode`, with nothing put around it."""
        return tuple(self._encode(text, control=False, around=False).ids)

    def pieces(self, text: str) -> Pieces:
        """A text as `encode` gives it, with the place of each token."""
        found = self._encode(text, control=False, around=True)
        special = tuple(map(bool, found.special_tokens_mask))
        return Pieces(tuple(found.ids), tuple(found.offsets), special, tuple(found.word_ids))

    def encode_rendered(self, text: str, marks: Mapping[str, str]) -> tuple[int, ...]:
        """A text as a chat template renders it, in which control tokens count, and marked ones do not.

        `marks` are characters with what they stand for (see `edgewise.text.marks`). Without any, the text is encoded
        as a whole, exactly as in training; with some, the stretches between control tokens are encoded one by one.
        """
        whole = self._encode(text, control=True, around=False)
        spans = list(zip(whole.ids, whole.offsets, strict=True))
        found = [(token, span) for token, span in spans if token in self.control]
        literal = [(token, span) for token, span in found if self.control[token] in text[slice(*span)]]
        if literal == found and not any(mark in text for mark in marks):
            return tuple(whole.ids)
        ids: list[int] = []
        end = 0
        for token, (start, stop) in literal:
            ids += [*self._plain(text[end:start], marks), token]
            end = stop
        return (*ids, *self._plain(text[end:], marks))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; control tokens have none, but for the tags around a thought."""
        with self._lock, _guarded(GenerationError, "the tokens cannot be decoded"):
            return self._tokenizer.decode([token for token in tokens if token not in self.silent], False)

    def serialize(self) -> str:
        """What `tokenizer.json` has of it."""
        with self._lock:
            return self._tokenizer.to_str()

    def _plain(self, text: str, marks: Mapping[str, str]) -> Iterable[int]:
        for mark, original in marks.items():
            text = text.replace(mark, original)
        return self._encode(text, control=False, around=False).ids if text else ()

    def _encode(self, text: str, *, control: bool, around: bool) -> tokenizers.Encoding:
        _check_unicode(text)
        with self._lock, _guarded(GenerationError, "the text cannot be encoded"):
            self._tokenizer.encode_special_tokens = not control
            return self._tokenizer.encode(text, add_special_tokens=around)


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise GenerationError(
            f"the text is not valid Unicode: {text[error.start]!r} at character {error.start} is half of a character, "
            "or a byte that was not UTF-8"
        ) from error


@contextmanager
def _guarded(kind: type[EdgewiseError], what: str) -> Iterator[None]:
    """The library's errors as ours; its panics are not even an Exception."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise kind(f"{what}: {str(error).partition(chr(10))[0]}") from error
        raise
