"""tests: drawing tokens by their weights, and finding the highest of many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributions import SAMPLERS, exactly, random_scores
from edgewise.options import record
from edgewise.search.draw import draw, locate
from edgewise.search.filters.fewest import fewest
from edgewise.search.filters.top_k import highest
from edgewise.search.sample import Sample

REAL = 151_936  # tokens, of a large vocabulary in use

DRAWN = [*SAMPLERS, Sample(top_n_sigma=1.5), Sample(temperature_range=0.5)]
DRAWN += [Sample(xtc_probability=0.5, xtc_threshold=0.05)]


@pytest.mark.parametrize("sample", DRAWN, ids=lambda sample: str(record(sample)))
def test_tokens_come_as_often_as_their_probability_says(sample: Sample) -> None:
    """Chi-square over the tokens that are expected at least five times; p > 1e-6 with a fixed seed."""
    scores = random_scores(1, 60, 1.5)
    expected = exactly(sample, scores) * (draws := 10_000)
    rng = np.random.default_rng(7)
    counts = np.bincount([sample.choose(scores.copy(), None, rng)[0] for _ in range(draws)], minlength=60)
    assert counts[expected == 0].sum() == 0
    often = expected >= 5
    statistic = float(((counts - expected)[often] ** 2 / expected[often]).sum())
    freedom = int(often.sum())
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 12


def test_large_vocabularies_are_drawn_from_evenly() -> None:
    """Through blocks of weights: the share of each tenth of the vocabulary is a tenth, within five deviations."""
    rng = np.random.default_rng(0)
    weights = np.ones(REAL, np.float32)
    places = np.array([draw(weights, rng) for _ in range(5000)])
    counts = np.histogram(places, bins=10, range=(0, REAL))[0]
    assert np.abs(counts - 500).max() < 5 * (500 * 0.9) ** 0.5


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=1500), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_what_has_no_weight_is_never_drawn(values: list[float], seed: int) -> None:
    weights = np.array([*values, 1.0, 0.0], np.float32)
    weights[weights < 0.5] = 0
    assert weights[draw(weights, np.random.default_rng(seed))] > 0


def test_a_place_at_the_very_end_is_the_last_weight_that_counts() -> None:
    """A random number just below 1 may round to it."""
    for length in (5, 5000):
        weights = np.zeros(length, np.float32)
        weights[:3] = 1
        assert locate(weights, 1.0, "right") == 2


numbers = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=300)


@given(numbers, st.integers(1, 320), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_the_highest_are_those_that_sorting_finds(values: list[float], count: int, repeats: int) -> None:
    scores = np.array(values * repeats, np.float32)
    bound = np.sort(scores)[::-1][min(count, len(scores)) - 1]
    assert highest(scores, count).tolist() == np.flatnonzero(scores >= bound).tolist()


@given(numbers, st.floats(0.01, 0.999), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_a_nucleus_reaches_its_mass_and_would_not_without_its_least(
    values: list[float], mass: float, repeats: int
) -> None:
    scores = np.array(values * repeats, np.float32)
    weights = np.exp(scores).astype(np.float64)
    found = np.flatnonzero(fewest(scores, weights.astype(np.float32), mass))
    least = scores[found].min()
    assert weights[found].sum() >= mass * weights.sum() * (1 - 1e-5)
    assert weights[scores > least].sum() < mass * weights.sum() * (1 + 1e-5)
    assert found.tolist() == np.flatnonzero(scores >= least).tolist()


def test_a_flat_distribution_has_a_large_nucleus() -> None:
    """Beyond the tokens that a nucleus is first looked for among."""
    weights = np.linspace(1, 2, REAL, dtype=np.float32)
    share = np.cumsum(np.sort(weights)[::-1], dtype=np.float64) / weights.sum(dtype=np.float64)
    assert (
        abs(int(fewest(weights, weights, 0.9).sum()) - int(np.searchsorted(share, 0.9)) - 1) <= 2
    )  # float32 sums of 1e5 numbers


def test_the_crossing_token_is_inside_and_an_exact_hit_adds_none() -> None:
    weights = np.array([0.25, 0.5, 0.125, 0.125], np.float32)
    assert fewest(weights, weights, 0.5).tolist() == [False, True, False, False]
    assert fewest(weights, weights, 0.6).tolist() == [True, True, False, False]


def test_a_very_low_score_is_a_ban_at_any_temperature() -> None:
    scores = np.full(9, np.finfo(np.float32).min)
    scores[4] = 0
    assert {Sample(temperature=1e-6).choose(scores.copy(), None, np.random.default_rng(i))[0] for i in range(9)} == {4}
