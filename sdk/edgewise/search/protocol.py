"""sdk, search: the protocol between a search and whatever computes its scores.

A search never sees a session. It is a generator: it yields which tokens to append to which rows, and receives the
scores. So greedy is a few lines, and a search is tested against a table of numbers with no model at all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from collections.abc import Sequence as Listed
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

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
class LogProb:
    """How probable the model itself held a token, in nats: before temperature, penalties, filters and grammars."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the most probable tokens in its place with theirs, best first


@dataclass(frozen=True, slots=True)
class Emit:
    """Tokens that a sequence has for good."""

    sequence: int  # numbered from 0 by the search
    tokens: tuple[int, ...]
    logprobs: tuple[LogProb, ...] = ()  # of each token, where `Context.logprobs` asks for them


@dataclass(frozen=True, slots=True)
class Request:
    """What a search wants done before it goes on: rows released, tokens emitted, rows extended, in this order.

    What is emitted is final: it is streamed, and stop rules (end-of-sequence tokens and the limit among them) see
    each token. A search that emits leaves ending to the rules, and returns when `Reply.stopped` says so.
    """

    extend: tuple[Extend, ...] = ()
    release: tuple[tuple[int, int], ...] = ()  # (model, row): rows live until released
    emit: tuple[Emit, ...] = ()
    hidden: bool = False  # also the hidden states that the head scored, after the final norm


@dataclass(frozen=True, slots=True)
class Reply:
    """What a search gets back; arrays are views, valid until the next yield, and may be written to."""

    logits: tuple[FloatArray, ...] = ()  # per Extend, [scores, vocabulary]
    hidden: tuple[FloatArray, ...] | None = None  # per Extend, [tokens appended, hidden size]
    stopped: frozenset[int] = frozenset()  # sequences that a stop rule ended


class Vocabulary(Protocol):
    """What a part of a search may know of the tokenizer."""

    @property
    def size(self) -> int:
        """Tokens that the model scores."""
        ...

    @property
    def eos(self) -> frozenset[int]:
        """Tokens that end a sequence."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a text in the midst of another: nothing is put around it, and nothing is a control token."""
        ...

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that stands alone, with what the tokenizer puts around one."""
        ...

    def encode_control(self, text: str) -> tuple[int, ...]:
        """As `encode`, for a text that no user wrote: what names a control token is one."""
        ...

    def decode(self, tokens: Listed[int]) -> str: ...


@runtime_checkable
class Bindable(Protocol):
    """A search, a processor or a stop rule that texts were given to: the runner binds it before it uses it."""

    def bind(self, vocabulary: Vocabulary) -> Self:
        """The same, with what it needs of the vocabulary looked up. Raises OptionError."""
        ...


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


@dataclass(slots=True)
class Drafts:
    """What speculation has done for a generation so far, all of its sequences together."""

    steps: int = 0  # verifications: steps of the model that scored drafted tokens too
    drafted: int = 0  # tokens that they scored
    accepted: int = 0  # of them, those that became text

    @property
    def mean_accepted(self) -> float | None:
        """Drafted tokens that a verification accepted, on average; each gave one token more than that."""
        return self.accepted / self.steps if self.steps else None


@dataclass(frozen=True)
class Context:
    """What a search is given: the prompt, what the caller asked for, and the one source of randomness.

    `limit` is the number of new tokens at most; `eos` are the tokens that end a sequence. `ended` names the one of
    the caller's other stop rules that ends a sequence of these new tokens (with their log-probabilities, where they
    are asked for): searches that emit only at their end ask it after each token.
    `repeatable`: the output shall depend on nothing but the rest of the context, such as the clock (a seed was given).
    """

    prompt: tuple[int, ...]
    limit: int
    eos: frozenset[int]
    processors: tuple[Processor, ...] = ()
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    logprobs: int | None = None  # None: not asked for; k: of each chosen token, and of the k most probable ones
    ended: Callable[[tuple[int, ...], tuple[LogProb, ...]], str | None] = lambda tokens, logprobs: None
    repeatable: bool = True
    assistants: tuple[int, ...] = ()  # tokens that each of models 1, 2, ... can hold
    drafts: Drafts = field(default_factory=Drafts)  # for a search to count in
    forgets: bool = False  # rows forget tokens for good once the context is full


@dataclass(frozen=True)
class Sequence:
    """One finished sequence: its new tokens (without the token that ended it), and the score that ranks it."""

    tokens: tuple[int, ...]
    score: float | None = None
    logprobs: tuple[LogProb, ...] = ()
    reason: str | None = None  # what ended it, where the search knows; None: the stop rules tell


Flow = Generator[Request, Reply, tuple[Sequence, ...]]


class Search(ABC):
    """A way to choose tokens. Subclasses are frozen dataclasses: their fields are the options."""

    name: ClassVar[str]
    assistants: ClassVar[int] = 0  # other models that it has a use for

    @abstractmethod
    def flow(self, context: Context) -> Flow:
        """Yield requests, receive replies, return the sequences, best first; none where all was emitted."""
