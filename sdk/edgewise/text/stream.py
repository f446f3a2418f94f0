"""sdk, text: tokens to text as they come, never a part of a character."""

from collections.abc import Sequence
from copy import copy

from edgewise.text.tokenizer import Tokenizer

UNFINISHED = "\ufffd"  # how a decoder shows bytes that are not, or not yet, a character
CONTEXT = 8  # tokens before a new one that its text may depend on: two characters of four bytes
LONGEST = 32  # tokens that are decoded again for a new one


class TextStream:
    """The text of one token after another: the pieces together are the text of all.

    A piece ends with a whole character: bytes of an unfinished one are kept back. `after` are tokens that the text
    follows (without them a decoder drops the space before a first word). The cost of a token does not grow.
    """

    def __init__(self, tokenizer: Tokenizer, *, after: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens, self._text = self._start(after)
        self._done = len(self._text)  # characters of it that were handed out

    def push(self, token: int) -> str:
        """The text that is certain with this token and was not before: often none."""
        if token in self._tokenizer.silent:
            return ""
        self._tokens.append(token)
        self._text = self._tokenizer.decode(self._tokens)
        certain = len(self._text.rstrip(UNFINISHED))
        if len(self._tokens) > LONGEST:  # no character is that long: these bytes will never be one
            certain = max(certain, len(self._text) - 3)
        piece = self._text[self._done : certain]
        self._done = max(self._done, certain)
        if len(self._tokens) > 2 * CONTEXT:
            self._forget()
        return piece

    def fork(self) -> "TextStream":
        """Another one, where this one is."""
        other = copy(self)
        other._tokens = list(self._tokens)
        return other

    def flush(self) -> str:
        """What was kept back, as it is, at the end of the text."""
        piece = self._text[self._done :]
        self._done = len(self._text)
        return piece

    def _start(self, after: Sequence[int]) -> tuple[list[int], str]:
        """The last tokens of what the text follows, from where a character begins."""
        tails = [list(after[-kept:]) for kept in range(CONTEXT, CONTEXT - 4, -1)]
        starts = [(tokens, self._tokenizer.decode(tokens)) for tokens in tails]
        return min(starts, key=lambda start: start[1].count(UNFINISHED))

    def _forget(self) -> None:
        """Drop tokens whose text is done, where that changes nothing about the text of the rest."""
        for kept in range(CONTEXT, CONTEXT - 4, -1):
            tail = self._tokenizer.decode(self._tokens[-kept:])
            same = self._text.endswith(tail) and not tail.endswith(UNFINISHED)
            if same or len(self._tokens) > LONGEST:
                self._done -= len(self._text) - len(tail)
                self._tokens, self._text = self._tokens[-kept:], tail
                return
