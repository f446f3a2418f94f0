"""sdk, search: the protocol between a search and whatever computes its scores.

A search never sees a session. It is a generator: it yields which tokens to append to which rows, and receives the
scores. So greedy is a few lines, and a search is tested against a table of numbers with no model at all.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Extend:
    """Append tokens to a row, and score the last of them."""

    row: int  # a handle that the search chooses
    tokens: tuple[int, ...]
    parent: int | None  # None: an empty cache; == row: in place; another row: fork
    length: int = -1  # how much of the parent to keep (rewind); -1: all
    scores: int = 1  # how many last positions to score (a draft's width)
    model: int = 0  # draft, amateur, member of an ensemble


@dataclass(frozen=True, slots=True)
class Request:
    """What a search wants done before it goes on: rows released, tokens emitted, rows extended, in this order.

    What is emitted is final: it is streamed, and stop rules (end-of-sequence tokens and the limit among them) see
    each token. A search that emits leaves ending to the rules, and returns when `Reply.stopped` says so.
    """

    extend: tuple[Extend, ...] = ()
    release: tuple[tuple[int, int], ...] = ()  # (model, row): rows live until released
    emit: tuple[tuple[int, tuple[int, ...]], ...] = ()  # (sequence, tokens that are final)
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a search gets back; arrays are views, valid until the next yield, and may be written to."""

    logits: tuple[FloatArray, ...] = ()  # per Extend, [scores, vocabulary]
    hidden: tuple[FloatArray, ...] | None = None
    stopped: frozenset[int] = frozenset()  # sequences that a stop rule ended


class Processor(Protocol):
    """Rewrites the scores of the next token: penalties, bans, grammars.

    Its state is a value: `advance` returns a new one and leaves the old one as it was, so that a fork or a rewind
    costs nothing.
    """

    def start(self, prompt: tuple[int, ...]) -> Any:
        """The state after the prompt."""
        ...

    def advance(self, state: Any, tokens: tuple[int, ...]) -> Any:
        """The state after these new tokens."""
        ...

    def apply(self, state: Any, logits: FloatArray) -> FloatArray:
        """The scores, float32 `[vocabulary]`, as they shall be; -inf bans a token. May write into `logits`."""
        ...


@dataclass(frozen=True)
class Context:
    """What a search is given: the prompt, what the caller asked for, and the one source of randomness.

    `limit` is the number of new tokens at most; `eos` are the tokens that end a sequence.
    """

    prompt: tuple[int, ...]
    limit: int
    eos: frozenset[int]
    processors: tuple[Processor, ...] = ()
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))


@dataclass(frozen=True)
class Sequence:
    """One finished sequence: its new tokens (without the token that ended it) and their total log-probability."""

    tokens: tuple[int, ...]
    score: float | None = None


Flow = Generator[Request, Reply, tuple[Sequence, ...]]


class Search(ABC):
    """A way to choose tokens. Subclasses are frozen dataclasses: their fields are the options."""

    name: ClassVar[str]

    @abstractmethod
    def flow(self, context: Context) -> Flow:
        """Yield requests, receive replies, return the sequences, best first; none where all was emitted."""
