"""tests: how many tokens are drafted: what pays, on a clock that tests turn."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from drafting import chain, near
from edgewise.search.ahead import Speculation, ahead
from edgewise.search.draft import Draft
from edgewise.search.greedy import Greedy
from edgewise.search.lookup import Lookup
from edgewise.search.pace import Pace
from edgewise.search.protocol import Context, Extend, FloatArray, Flow, Search
from tables import Model, Texts, search, table

TARGET = chain(0, vocabulary=99)


class Timed(Texts):
    """Rows on a clock of their own: a step of a model takes as long as `seconds` says of its tokens.

    Remembers of each token of the text whether it was computed alone.
    """

    def __init__(self, seconds: Any, *models: Model) -> None:
        super().__init__(*models)
        self.seconds = seconds
        self.now = 0.0
        self.alone: dict[int, bool] = {}

    def extend(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]:
        for extend in extends:
            self.now += self.seconds(extend.model, len(extend.tokens))
            if extend.model == 0 and extend.parent is not None:
                self.alone |= {extend.length + i: len(extend.tokens) == 1 for i in range(len(extend.tokens))}
        return super().extend(extends)


class OnClock(Search):
    """Greedy search with drafts of model 1, or of lookup where there is none, on the clock of its rows."""

    name = "on_clock"

    def __init__(self, texts: Timed) -> None:
        self.texts = texts

    def flow(self, context: Context) -> Flow:
        drafter = Draft(context) if context.assistants else Lookup()
        return ahead(Greedy().flow(context), context, Speculation(drafter, Pace(), lambda: self.texts.now))


def timed(seconds: Any, model: Model, draft: Model | None, count: int = 400) -> Timed:
    """What is left of so many tokens; they are those without drafts."""
    texts = Timed(seconds, model, *([draft] if draft else []))
    expected = search(Greedy(), Texts(model), limit=count)
    assert search(OnClock(texts), texts, limit=count, assistants=(9999,) if draft else ()) == expected
    return texts


def took(seconds: Any, draft: Model | None, model: Model = TARGET, count: int = 400) -> float:
    """Seconds of so many tokens by those of as many steps of one."""
    return float(timed(seconds, model, draft, count).now / (count * seconds(0, 1)))


def linear(step: float, token: float, draft: float) -> Any:
    """A step and each of its tokens; of the draft model, which catches up faster than it drafts, a step."""
    return lambda model, tokens: draft * (1 + 0.15 * tokens) if model else step + token * tokens


def wrong(text: tuple[int, ...]) -> FloatArray:
    return -TARGET(text)


def test_drafts_that_are_never_right_cost_next_to_nothing() -> None:
    """A draft bundle computes the prompt too, and what it missed before each trial."""
    for seconds in (linear(1, 0.1, 0.1), linear(1, 0.5, 0.2)):
        assert took(seconds, wrong) < 1.06
        assert took(seconds, None, table(1, 99)) < 1.01


def test_how_a_token_is_computed_does_not_depend_on_the_clock() -> None:
    """Alone or beside others: by the text, for drafts that are right or wrong, in turns or by chance."""
    turns: Model = lambda text: TARGET(text) if len(text) // 40 % 2 else wrong(text)  # noqa: E731
    texts: Model = lambda text: TARGET(text) if len(text) // 40 % 2 else table(1, 99)(text)  # noqa: E731
    pairs: list[tuple[Model, Model | None]] = [
        (TARGET, turns),
        (TARGET, near(TARGET, 2.0)),
        (texts, None),
        (TARGET, wrong),
    ]
    ways = set()
    for model, draft in pairs:
        found = [timed(linear(*costs), model, draft).alone for costs in ((1, 0.01, 0.01), (1, 0.4, 0.2), (1, 2, 1))]
        assert found[0] == found[1] == found[2]
        ways.add(frozenset(found[0].values()))
    assert ways == {frozenset({False}), frozenset({True, False})}


def test_drafts_that_are_right_pay_unless_they_cost_as_much_as_they_save() -> None:
    right = TARGET
    assert took(linear(1, 0.02, 0.02), right) < 0.2
    assert took(linear(1, 0.3, 0.1), right) < 0.65
    assert took(linear(1, 0.1, 1.2), right) < 1.12


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
