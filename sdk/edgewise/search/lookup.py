"""sdk, search: prompt lookup: a text that repeats itself is its own draft.

As in transformers' `prompt_lookup_num_tokens` and llama.cpp's lookup: the last tokens are searched for in the text
before them, and what came next there is drafted. The index is a chain of places with the same n-gram, as in LZ77.
"""

from collections.abc import Generator

from edgewise.search.ahead import Trust
from edgewise.search.protocol import Reply, Request

SHORTEST = 2  # tokens that are the same in places that are compared; where there is none, one token will do
LONGEST = 32  # beyond so many, longer is not better
RECENT, WORTH = 16, 1 / 8  # tokens that count for how often it is right, and how often it has to be
CANDIDATES = 16  # places that are compared, the latest first


class Lookup:
    """Drafts what followed the last tokens where they were before: the longest such match, the latest of equals."""

    def __init__(self) -> None:
        self._text: list[int] = []
        self._last: dict[tuple[int, ...], int] = {}  # n-gram: where the latest one ended, with a token after it
        self._before: list[int] = []  # place: where the same n-gram as before it ended last; -1: nowhere
        self._right = 0.0  # how often the next token would have been drafted, of late

    def begin(self, prompt: tuple[int, ...], vocabulary: int) -> None:
        known = max(1, len(prompt) - 2 * RECENT)
        for token in prompt[:known]:
            self._append(token)
        for token in prompt[known:]:
            self.add(token)

    def add(self, token: int) -> None:
        place, length = self._match()
        right = length > 0 and self._text[place] == token
        self._right += (right - self._right) / RECENT
        self._append(token)

    def trust(self) -> Trust:
        return Trust.FULL if self._right >= WORTH else Trust.NONE

    def _append(self, token: int) -> None:
        end, before = len(self._text), -1
        if end:
            self._last[(self._text[-1],)] = end
        if end >= SHORTEST:
            ngram = tuple(self._text[-SHORTEST:])
            before = self._last.get(ngram, -1)
            self._last[ngram] = end
        self._before.append(before)
        self._text.append(token)

    def promise(self) -> int:
        """Longer matches promise more: by powers of two."""
        return self._match()[1].bit_length()

    def behind(self) -> int:
        return 0

    def draft(self, count: int) -> Generator[Request, Reply, tuple[int, ...]]:
        """Asks for nothing; what runs into the end of the text repeats."""
        place, length = self._match()
        known = len(self._text)
        for i in range(count if length else 0):
            self._text.append(self._text[place + i])
        drafted = tuple(self._text[known:])
        del self._text[known:]
        return drafted
        yield

    def _match(self) -> tuple[int, int]:
        """Where the text after the best match begins, and the length of the match; 0 where there is none."""
        place = self._last.get(tuple(self._text[-SHORTEST:]), -1)
        single = self._last.get((self._text[-1],), 0)
        best = (single, min(single, 1))
        for _ in range(CANDIDATES):
            if place < 0:
                break
            length = self._length(place)
            if length > best[1]:
                best = (place, length)
            place = self._before[place]
        return best

    def _length(self, place: int) -> int:
        """How many tokens before the place are those at the end."""
        text, end = self._text, len(self._text)
        length = SHORTEST
        while length < min(LONGEST, place) and text[place - 1 - length] == text[end - 1 - length]:
            length += 1
        return length
