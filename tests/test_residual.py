"""tests: speculative sampling with drawn drafts: exhaustively on small grids, by chi-square elsewhere."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest

from drafting import chain, near
from edgewise.search.protocol import Drafts, FloatArray, Search
from edgewise.search.residual import keep
from edgewise.search.sample import Sample
from edgewise.search.speculate import Speculative
from tables import Model, Texts, search, table

VOCABULARY = 12


class Choices:
    """Random numbers of a grid, one after the other; `then` gives those of the next way that things can go."""

    def __init__(self, numbers: list[int], grid: int) -> None:
        self.numbers, self.grid = numbers, grid
        self.asked = 0

    def random(self) -> float:
        if self.asked == len(self.numbers):
            self.numbers.append(0)
        self.asked += 1
        return (self.numbers[self.asked - 1] + 0.5) / self.grid

    def then(self) -> list[int] | None:
        numbers = self.numbers[: self.asked]
        while numbers and numbers[-1] == self.grid - 1:
            numbers.pop()
        return [*numbers[:-1], numbers[-1] + 1] if numbers else None


def outcomes(how: Search, texts: Texts, grid: int, limit: int) -> Counter[tuple[int, ...]]:
    """How probable each text is, by every random number that the search can meet."""
    found: Counter[tuple[int, ...]] = Counter()
    numbers: list[int] | None = []
    while numbers is not None:
        choices = Choices(numbers, grid)
        (text,) = search(how, texts, limit=limit, prompt=(1,), rng=cast(Any, choices), assistants=(99,))
        found[text.tokens] += grid**-choices.asked
        numbers = choices.then()
    return found


# What a target and a draft hold probable, in halves or quarters: on such a grid every decision is exact.
HALVES = [((1, 1, 0), (0, 1, 1)), ((2, 0, 0), (1, 1, 0)), ((1, 1, 0), (2, 0, 0)), ((0, 1, 1), (0, 1, 1))]
QUARTERS = [((1, 2, 1), (2, 1, 1)), ((0, 2, 2), (2, 0, 2)), ((2, 1, 1), (1, 1, 2)), ((4, 0, 0), (1, 1, 2))]


@pytest.mark.parametrize(
    ("pairs", "grid", "width", "limit"),
    [(HALVES, 2, 1, 4), (HALVES, 2, 2, 4), (HALVES, 2, 3, 5), (HALVES[::-1], 2, 2, 5), (QUARTERS, 4, 1, 3)],
)
def test_texts_have_the_joint_distribution_of_the_target(pairs: Any, grid: int, width: int, limit: int) -> None:
    """Exhaustively: the probability of each text is the product of those of its tokens."""
    with np.errstate(divide="ignore"):
        target, draft = (np.log(np.array([pair[side] for pair in pairs], np.float32) / grid) for side in (0, 1))
    texts = Texts(*(lambda text, rows=rows: rows[(len(text) - 1) % len(rows)].copy() for rows in (target, draft)))
    found = outcomes(Speculative(search=Sample(), width=width), texts, grid, limit)
    for text in itertools.product(range(3), repeat=limit):
        expected = np.prod([np.exp(target[place % len(target), token]) for place, token in enumerate(text)])
        assert found[text] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("noise", [0.5, 5.0])
@pytest.mark.parametrize("how", [Sample(), Sample(temperature=0.7, top_k=4), Sample(top_p=0.8)], ids=str)
def test_texts_come_as_often_as_their_probability_says(how: Sample, noise: float) -> None:
    """Chi-square over pairs of tokens that were drafted, one of which ends the text; fixed seeds, p > 1e-6."""
    model = chain(4, 1.5, 6)
    texts, rng = Texts(model, near(model, noise)), np.random.default_rng(0)
    counts: Counter[tuple[int, ...]] = Counter()
    speculative = Speculative(search=how, width=3)
    for _ in range(draws := 2000):
        (text,) = search(speculative, texts, limit=5, prompt=(2,), eos=(5,), rng=rng, assistants=(99,))
        counts[text.tokens[:2]] += 1
    expected = {text: draws * p for text, p in pairs_of(how, model, 2, 5)}
    assert not set(counts) - set(expected)
    statistic = sum((counts[text] - often) ** 2 / often for text, often in expected.items() if often >= 5)
    freedom = sum(often >= 5 for often in expected.values())
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 12


def pairs_of(how: Sample, model: Model, last: int, eos: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """The first two tokens of texts, or fewer where they end, after a token; each with its probability."""
    for first, p in enumerate(probabilities(how, model((last,)))):
        if first == eos:
            yield (), p
        for second, q in enumerate(probabilities(how, model((first,)))):
            if p * q and first != eos:
                yield ((first,) if second == eos else (first, second)), p * q


def probabilities(how: Sample, scores: FloatArray) -> list[float]:
    ids, weights = how.candidates(scores.copy())
    found = np.zeros(len(scores))
    found[slice(None) if ids is None else ids] = weights / weights.sum()
    return list(map(float, found))


def test_more_drawn_drafts_are_accepted_than_certain_ones() -> None:
    """With a seed and no width, drafts are the most probable tokens, so that the tokens are those without drafts."""
    model = table(1, VOCABULARY, 1.0)
    rates = []
    for repeatable in (True, False):
        drafts = Drafts()
        texts = Texts(model, near(model, 0.1))
        more: dict[str, Any] = {"assistants": (9999,), "drafts": drafts, "repeatable": repeatable}
        search(Speculative(search=Sample()), texts, limit=600, rng=np.random.default_rng(0), **more)
        rates.append(drafts.accepted / drafts.drafted)
    assert rates[1] > rates[0] + 0.2


def test_a_kept_token_is_distributed_as_the_target_also_where_it_cannot_be_drafted() -> None:
    """p and q with nothing in common, and rounding that leaves nothing."""
    rng = np.random.default_rng(0)
    p, q = np.array([0.5, 0.5, 0], np.float32), np.array([0, 0, 1], np.float32)
    assert {keep(2, p, q, rng) for _ in range(50)} == {(0, False), (1, False)}
    for share, kept in ((0.9, True), (0.8, False)):  # of p, where the random number is 7/8
        unlucky: Any = Choices([3], 4)
        assert keep(0, p * np.float32(share), p, unlucky)[1] is kept
