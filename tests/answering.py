"""tests: a scaler with a table of answers instead of a model."""

from collections.abc import Callable, Iterable, Sequence
from itertools import count

import numpy as np

from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Prompt, Scaler

Answer = Callable[[Draw, int], Candidate | str]  # the i-th answer of all


class Answers:
    """Gives what it is told to, until so many samples are drawn; keeps the draws."""

    def __init__(self, answers: Answer | Sequence[Candidate | str], *, samples: int = 16) -> None:
        self._answers = answers if callable(answers) else lambda draw, i: answers[i % len(answers)]
        self._left = samples
        self._numbers = count()
        self.draws: list[Draw] = []

    def __call__(self, draw: Draw) -> tuple[Candidate, ...]:
        self.draws.append(draw)
        number = draw.count
        if draw.sample:
            number = min(number, self._left)
            self._left -= number
        return tuple(_candidate(self._answers(draw, next(self._numbers)), draw) for _ in range(number))

    @property
    def samples(self) -> int:
        """How many were drawn."""
        return next(self._numbers)


def scaled(
    scaler: Scaler, answers: Answers | Iterable[Candidate | str], *, prompt: Prompt = "", models: int = 1, seed: int = 0
) -> Choice:
    """What a scaler chooses among answers."""
    give = answers if isinstance(answers, Answers) else Answers(tuple(answers))
    flow = scaler.flow(Context(prompt, models, np.random.default_rng(seed)))
    try:
        draw = next(flow)
        while True:
            draw = flow.send(give(draw))
    except StopIteration as end:
        choice: Choice = end.value
        return choice


def _candidate(answer: Candidate | str, draw: Draw) -> Candidate:
    return Candidate(text=answer, model=draw.model) if isinstance(answer, str) else answer
