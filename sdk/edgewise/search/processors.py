"""sdk, search: what processors share: one after the other as one, and a history that forks for nothing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.search.protocol import FloatArray, Processor

BANNED = -1e30  # no model's score is below it: a processor has banned the token


@dataclass(frozen=True)
class Chain:
    """Processors applied in order, as one processor; none at all leaves the scores as they are."""

    processors: tuple[Processor, ...]

    def start(self, prompt: tuple[int, ...]) -> tuple[Any, ...]:
        return tuple(processor.start(prompt) for processor in self.processors)

    def advance(self, state: tuple[Any, ...], tokens: tuple[int, ...]) -> tuple[Any, ...]:
        pairs = zip(self.processors, state, strict=True)
        return tuple(processor.advance(inner, tokens) for processor, inner in pairs)

    def apply(self, state: tuple[Any, ...], logits: FloatArray) -> FloatArray:
        for processor, inner in zip(self.processors, state, strict=True):
            logits = processor.apply(inner, logits)
        return logits


class History:
    """Tokens so far, as a value: `append` gives a longer one and leaves this one as it was.

    Histories that grow from one another share memory; only a second branch from the same point copies.
    """

    __slots__ = ("_length", "_store")

    def __init__(self, tokens: tuple[int, ...] = ()) -> None:
        self._store = _Store(np.array(tokens, np.int64), len(tokens))
        self._length = len(tokens)

    @property
    def tokens(self) -> NDArray[np.int64]:
        return self._store.array[: self._length]

    def last(self, window: int) -> NDArray[np.int64]:
        """So many last tokens; all of them where the window is 0."""
        return self._store.array[max(0, self._length - window) if window else 0 : self._length]

    def __len__(self) -> int:
        return self._length

    def append(self, tokens: tuple[int, ...]) -> "History":
        end = self._length + len(tokens)
        longer = History.__new__(History)
        if self._store.used == self._length and end <= len(self._store.array):
            longer._store = self._store
        else:
            array = np.empty(max(64, 2 * end), np.int64)
            array[: self._length] = self.tokens
            longer._store = _Store(array, self._length)
        longer._store.array[self._length : end] = tokens
        longer._store.used = longer._length = end
        return longer


@dataclass(slots=True)
class _Store:
    """Memory that histories share, and how much of it the longest of them uses."""

    array: NDArray[np.int64]
    used: int
