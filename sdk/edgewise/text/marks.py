"""sdk, text: marks: how text that users wrote passes through a template without becoming a control token.

One character of each control token in a message is replaced by a mark, a private-use character that is used nowhere
else; so is a character of a part of one at either end, which the template's own text might complete. The template
sees the messages as they are in every other respect, each control token in what it renders is its own, and
the tokenizer puts the marked characters back into what it encodes as text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

NAMES = frozenset({"role", "type"})  # values of these keys are names that a template compares

_PRIVATE = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))


class Marks:
    """Marks for the texts of some control tokens; none is a character of the texts to `avoid`."""

    def __init__(self, control: Iterable[str], *, avoid: Iterable[str] = ()) -> None:
        self._control = tuple(control)
        self._avoid = set(chain.from_iterable(avoid))
        self._whole = re.compile("|".join(re.escape(text) for text in self._control) or r"(?!)")
        self._beginnings = tuple({text[:end] for text in self._control for end in range(1, len(text))})
        self._ends = tuple({text[start:] for text in self._control for start in range(1, len(text))})
        self._marks: dict[str, str] = {}

    @property
    def originals(self) -> Mapping[str, str]:
        """The characters that the marks stand for."""
        return {mark: character for character, mark in self._marks.items()}

    def mark(self, value: Any) -> Any:
        """A copy of messages, or of any part of one, with marks in its texts."""
        self._choose(value)
        return self._marked(value)

    def _choose(self, value: Any) -> None:
        taken = self._avoid | set(chain.from_iterable(_texts(value)))
        free = (chr(code) for code in _PRIVATE if chr(code) not in taken)
        self._marks = dict(zip(sorted(set("".join(self._control))), free, strict=False))

    def _marked(self, value: Any, key: object = None) -> Any:
        if isinstance(value, str):
            return value if key in NAMES else self._text(value)
        if isinstance(value, Mapping):
            return {self._marked(k): self._marked(item, k) for k, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._marked(item) for item in value]
        return value

    def _text(self, text: str) -> str:
        while self._whole.search(text):  # again: marking one may leave another that overlapped it
            text = self._whole.sub(lambda found: self._marks[found[0][0]] + found[0][1:], text)
        for body in (text.rstrip(), text):
            if body.endswith(self._beginnings):
                text = self._at(text, len(body) - 1)
        for body in (text.lstrip(), text):
            if body.startswith(self._ends):
                text = self._at(text, len(text) - len(body))
        return text

    def _at(self, text: str, place: int) -> str:
        character = text[place]
        return text[:place] + self._marks.get(character, character) + text[place + 1 :]


def _texts(value: Any) -> Iterator[str]:
    """Every text in messages, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
