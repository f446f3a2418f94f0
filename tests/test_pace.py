"""tests: how many tokens are drafted: what pays, on a clock that tests turn."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from drafting import chain
from edgewise.search.ahead import Speculation, ahead
from edgewise.search.draft import Draft
from edgewise.search.greedy import Greedy
from edgewise.search.pace import Pace
from edgewise.search.protocol import Context, Extend, FloatArray, Flow, Search
from tables import Model, Texts, search


class Timed(Texts):
    """Rows on a clock of their own: a step of a model takes as long as `seconds` says of its tokens."""

    def __init__(self, seconds: Any, *models: Model) -> None:
        super().__init__(*models)
        self.seconds = seconds
        self.now = 0.0

    def extend(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]:
        self.now += sum(self.seconds(extend.model, len(extend.tokens)) for extend in extends)
        return super().extend(extends)


class OnClock(Search):
    """Greedy search with drafts of model 1, on the clock of its rows."""

    name = "on_clock"

    def __init__(self, texts: Timed) -> None:
        self.texts = texts

    def flow(self, context: Context) -> Flow:
        by = Speculation(Draft(context), Pace(), lambda: self.texts.now)
        return ahead(Greedy().flow(context), context, by)


def took(seconds: Any, draft: Model, count: int = 400) -> float:
    """Seconds of so many tokens by those of as many steps without a draft."""
    model = chain(0, vocabulary=99)
    texts = Timed(seconds, model, draft)
    expected = search(Greedy(), Texts(model), limit=count)
    assert search(OnClock(texts), texts, limit=count, assistants=(9999,)) == expected
    return float(texts.now / (count * seconds(0, 2)))


def linear(step: float, token: float, draft: float) -> Any:
    """A step and each of its tokens; of the draft model, which catches up faster than it drafts, a step."""
    return lambda model, tokens: draft * (1 + 0.15 * tokens) if model else step + token * tokens


def wrong(text: tuple[int, ...]) -> FloatArray:
    return -chain(0, vocabulary=99)(text)


def test_drafts_that_are_never_right_cost_next_to_nothing() -> None:
    assert took(linear(1, 0.1, 0.1), wrong) < 1.05
    assert took(linear(1, 0.5, 0.5), wrong) < 1.12


def test_drafts_that_are_right_pay_unless_they_cost_as_much_as_they_save() -> None:
    right = chain(0, vocabulary=99)
    assert took(linear(1, 0.02, 0.02), right) < 0.2
    assert took(linear(1, 0.3, 0.1), right) < 0.65
    assert took(linear(1, 0.1, 1.2), right) < 1.03


def test_the_width_is_the_one_that_pays_best() -> None:
    """Against all widths, by the formula; drafts are accepted three times of four."""
    for step, token, draft in ((1.0, 0.1, 0.05), (1.0, 0.3, 0.02), (1.0, 0.02, 0.3), (1.0, 1.0, 0.3)):
        pace, rng = Pace(), np.random.default_rng(0)
        chosen: Counter[int] = Counter()
        for _ in range(1000):
            width = pace.width(1, 99)
            chosen[width] += 1
            pace.stepped(max(width + 1, 2), step + token * max(width + 1, 2))
            if width:
                right = int(min(width, rng.geometric(0.25) - 1))
                pace.drafted(width, draft * width)
                pace.judged(1, right, width)
        rates = {
            width: (1 - 0.75 ** (width + 1)) / 0.25 / (step + token * max(width + 1, 2) + draft * width)
            for width in (0, 1, 3, 5, 7, 11, 15)
        }
        best = sum(rates[width] * count for width, count in chosen.items()) / 1000
        assert best > 0.93 * max(rates.values())


def test_a_pause_grows_while_drafts_are_in_vain() -> None:
    pace = Pace()
    drafted = []
    for step in range(600):
        width = pace.width(1, 99)
        pace.stepped(max(width + 1, 2), 1.0)
        if width:
            drafted.append(step)
            pace.drafted(width, 0.5 * width)
            pace.judged(1, 0, width)
    gaps = np.diff(drafted).tolist()
    assert gaps[-1] > 100
    assert gaps == sorted(gaps)


def test_a_width_that_is_given_is_the_width() -> None:
    assert [Pace(4).width(1, most) for most in (9, 4, 2, 0)] == [4, 4, 2, 0]
    assert Pace(4).width(0, 9) == 0
