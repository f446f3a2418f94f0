"""sdk, search: a smaller model as the draft: model 1, whose tokens mean the same."""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from edgewise.search.ahead import Trust
from edgewise.search.processors import Chain
from edgewise.search.protocol import Context, Extend, FloatArray, Reply, Request

TRIES, RIGHT = 6, 3  # drafts of one token in a trial, and how many of them have to be right
PAUSE, LONGER = 64, 4  # tokens until the next trial, and how many times more each time

Choose = Callable[[FloatArray], int]  # of the scores that processors leave; may write into them


def most_probable(scores: FloatArray) -> int:
    return int(scores.argmax())


class Draft:
    """Drafts with a row of model 1, kept in step with the text. Processors apply to its scores as to the others.

    It is trusted once it has passed a trial.
    """

    def __init__(self, context: Context, choose: Choose = most_probable) -> None:
        self._choose = choose
        self._room = context.assistants[0]
        self._processor = Chain(context.processors)
        self._history: Any = None
        self._prompt: tuple[int, ...] = ()
        self._text: list[int] = []
        self._row: list[int] = []  # what the row of model 1 holds
        self._vocabulary = 0
        self._guess: int | None = None  # the first token of the last draft, until the text has its place
        self._tries = self._right = 0
        self._passed = False
        self._rest, self._pause = 0, PAUSE

    def begin(self, prompt: tuple[int, ...], vocabulary: int) -> None:
        self._prompt, self._text = prompt, list(prompt)
        self._history = self._processor.start(prompt)
        self._vocabulary = vocabulary

    def add(self, token: int) -> None:
        self._text.append(token)
        self._history = self._processor.advance(self._history, (token,))
        self._rest -= 1
        if self._guess is not None:
            self._tries += 1
            self._right += self._guess == token
            self._guess = None
        if self._tries == TRIES and not self._passed:
            self._passed = self._right >= RIGHT
            self._tries = self._right = 0
            self._rest, self._pause = self._pause, LONGER * self._pause

    def trust(self) -> Trust:
        if self._passed:
            return Trust.FULL
        return Trust.NONE if self._rest > 0 else Trust.TRIAL

    def promise(self) -> int:
        """Drafts are all alike; there is none where the model holds no more."""
        return int(len(self._text) <= self._room)

    def behind(self) -> int:
        return len(self._text) - len(self._row)

    def draft(self, count: int) -> Generator[Request, Reply, tuple[int, ...]]:
        """At most so many tokens: fewer where its context ends, or where processors leave none."""
        drafted: list[int] = []
        history = self._history
        if not self._row:  # the prompt by itself: samples of one prompt have it in common
            yield Request(extend=(Extend(0, self._prompt, parent=None, model=1),))
            self._row = list(self._prompt)
        for _ in range(min(count, self._room - len(self._text) + 1)):
            reply = yield Request(extend=(self._step(drafted),))
            scores = self._processor.apply(history, _fitted(reply.logits[0][-1], self._vocabulary))
            if not scores.max() > -np.inf:
                break
            drafted.append(self._choose(scores))
            self._guess = drafted[0]
            history = self._processor.advance(history, (drafted[-1],))
        return tuple(drafted)

    def _step(self, drafted: list[int]) -> Extend:
        """What the row lacks of the text and the draft; what it holds beyond them is rewound."""
        text = self._text + drafted
        kept = _common(self._row, text)
        self._row = text
        return Extend(0, tuple(text[kept:]), parent=0, length=kept, model=1)


def _common(row: list[int], text: list[int]) -> int:
    """Tokens that both begin with; all but the last of the text at most: that one is to be scored."""
    limit = min(len(row), len(text) - 1)
    if row[:limit] == text[:limit]:
        return limit
    return next(i for i in range(limit) if row[i] != text[i])


def _fitted(scores: FloatArray, size: int) -> FloatArray:
    """Models of one tokenizer may score more or fewer tokens that do not exist."""
    if len(scores) >= size:
        return scores[:size]
    return np.concatenate((scores, np.full(size - len(scores), -np.inf, np.float32)))
