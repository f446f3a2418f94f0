"""sdk, scaling: the protocol between a scaler and whatever answers it.

A scaler never sees a runner. It is a generator: it yields which answers to draw, and receives them. So voting is a few
lines, a scaler is tested against a table of answers with no model at all, and one driver keeps the budget of them all.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from edgewise.search.protocol import LogProb
from edgewise.text.chat import Message

UNFINISHED = "step"  # why a part of an answer ended that others go on from

Prompt = str | Sequence[int] | Sequence[Message]  # a text, tokens, or a conversation


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Answers that a scaler wants. What is left of the budget may give it fewer; where none is left, none.

    Of a candidate that goes on from another one only the tokens need be given.
    """

    count: int = 1
    prompt: Prompt | None = None  # None: the one that the scaler was asked
    after: "Candidate | None" = None  # what the answers go on from, and begin with
    options: Mapping[str, Any] = field(default_factory=dict)  # of this generation, over those of the caller
    model: int = 0
    varied: bool = True  # whether several would differ: a checkpoint that asks for greedy is sampled then
    sample: bool = True  # whether these are answers to the prompt: the budget counts those that are whole


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One answer, whole or as far as it goes, without the prompt."""

    text: str
    tokens: tuple[int, ...] = ()
    finish_reason: str = "eos"  # "budget": what was left ended it
    logprobs: tuple[LogProb, ...] = ()  # of each token, where `Draw.options` asks for them
    model: int = 0
    answer: str | None = None  # in canonical form, where a scaler takes answers out of texts; None: there is none
    score: float = 0.0  # what the scaler ranks it by

    @property
    def whole(self) -> bool:
        return self.finish_reason != UNFINISHED


@dataclass(frozen=True)
class Choice:
    """What a scaler settles on."""

    best: Candidate
    candidates: tuple[Candidate, ...]  # all, in the order in which they were drawn
    why: str  # a phrase: "9 of 16 votes"


Flow = Generator[Draw, tuple[Candidate, ...], Choice]


@dataclass(frozen=True)
class Context:
    """What a scaler is given: the prompt, how many models there are, the one source of randomness.

    `spell` gives what each token of a candidate adds to its text, `left` the seconds that may still be spent. `tests`
    are those of the task, in Python, where it has some.
    """

    prompt: Prompt
    models: int = 1
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    spell: Callable[[Candidate], tuple[str, ...]] = lambda candidate: tuple(candidate.text)
    left: Callable[[], float] = lambda: math.inf
    tests: str = ""


class Scaler(ABC):
    """A way to spend a budget on one prompt. Subclasses are frozen dataclasses: their fields are the options."""

    name: ClassVar[str]
    models: ClassVar[int] = 1  # that it asks at least
    most: ClassVar[int | None] = None  # and at most; None: as many as there are, some by a verifier

    @abstractmethod
    def flow(self, context: Context) -> Flow:
        """Yield draws, receive candidates, return the choice.

        The first draw is always answered. Once a draw is answered by nothing, the budget is spent.
        """
