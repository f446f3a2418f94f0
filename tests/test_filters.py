"""tests: filters of a distribution: transformers as the oracle, or the definition in slow numpy; and what must hold."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewise.errors import OptionError
from edgewise.options import parse, record
from edgewise.search.draw import draw, locate
from edgewise.search.filters.fewest import fewest
from edgewise.search.filters.top_k import highest
from edgewise.search.protocol import FloatArray
from edgewise.search.sample import FILTERS, ORDER, Sample

REAL = 151_936  # tokens, of a large vocabulary in use

Doubles = NDArray[np.float64]


def random_scores(seed: int, count: int = 3000, deviation: float = 3.0) -> FloatArray:
    return np.random.default_rng(seed).normal(0, deviation, count).astype(np.float32)


def probabilities(sample: Sample, scores: FloatArray) -> Doubles:
    ids, weights = sample.candidates(scores.copy())
    found = np.zeros(len(scores))
    found[slice(None) if ids is None else ids] = weights / weights.sum(dtype=np.float64)
    return found


# The same scores in, the same tokens left, with the same probabilities.


WARPERS: dict[str, Callable[[Any], Any]] = {
    "temperature": transformers.TemperatureLogitsWarper,
    "top_k": transformers.TopKLogitsWarper,
    "top_p": transformers.TopPLogitsWarper,
    "min_p": transformers.MinPLogitsWarper,
    "typical_p": transformers.TypicalLogitsWarper,
    "epsilon_cutoff": transformers.EpsilonLogitsWarper,
    "eta_cutoff": transformers.EtaLogitsWarper,
}

SAMPLERS = [
    Sample(),
    Sample(temperature=0.5),
    Sample(temperature=2.0),
    Sample(top_k=5),
    Sample(top_p=0.7),
    Sample(min_p=0.1),
    Sample(typical_p=0.2),
    Sample(typical_p=0.9),
    Sample(temperature=1.5, typical_p=0.97),
    Sample(epsilon_cutoff=0.002),
    Sample(epsilon_cutoff=0.9),
    Sample(eta_cutoff=0.004),
    Sample(temperature=0.4, eta_cutoff=0.3),
    Sample(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05),
    Sample(temperature=1.3, top_k=200, top_p=0.97, min_p=0.01, typical_p=0.9, epsilon_cutoff=0.001, eta_cutoff=0.01),
]


def oracle(sample: Sample, scores: FloatArray) -> Doubles:
    """The warpers of transformers for what was given, in order."""
    asked = record(sample)
    warpers = [WARPERS[name](asked[name]) for name in sample.order if name in asked]
    chain: Any = transformers.LogitsProcessorList(warpers)
    left = chain(torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(scores[None].copy()))
    found: Doubles = left.double().softmax(-1)[0].numpy()
    return found


@pytest.mark.parametrize("sample", SAMPLERS, ids=lambda sample: str(record(sample)))
@pytest.mark.parametrize("seed", range(5))
def test_what_may_be_drawn_is_what_transformers_leaves(sample: Sample, seed: int) -> None:
    """Probabilities to 1e-5 of each: both compute in float32."""
    scores = random_scores(seed)
    np.testing.assert_allclose(probabilities(sample, scores), oracle(sample, scores), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("seed", range(30))
def test_so_it_is_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = tuple(str(name) for name in rng.permutation(list(WARPERS)))
    sample = Sample(
        temperature=rng.uniform(0.5, 2),
        top_k=int(rng.integers(2, 500)),
        top_p=rng.uniform(0.5, 0.99),
        min_p=rng.uniform(0.001, 0.1),
        typical_p=rng.uniform(0.5, 0.99),
        epsilon_cutoff=rng.uniform(1e-4, 1e-2),
        eta_cutoff=rng.uniform(1e-4, 1e-1),
        order=order,
    )
    scores = random_scores(seed)
    np.testing.assert_allclose(probabilities(sample, scores), oracle(sample, scores), rtol=1e-4, atol=1e-7)


def test_the_order_changes_what_is_left() -> None:
    scores = random_scores(0)
    first = probabilities(Sample(top_p=0.8, temperature=3.0), scores)
    last = probabilities(Sample(top_p=0.8, temperature=3.0, order=("top_p", "temperature")), scores)
    assert np.count_nonzero(first) > np.count_nonzero(last)


# The definition, slow and obvious, in float64: what transformers does not have.


def softmax(scores: NDArray[Any]) -> Doubles:
    weights = np.exp(scores.astype(np.float64) - scores.max())
    found: Doubles = weights / weights.sum()
    return found


def top_n_sigma(scores: FloatArray, n: float) -> Doubles:
    possible = scores[scores > -np.inf].astype(np.float64)
    return softmax(np.where(scores >= possible.max() - n * possible.std(), scores, -np.inf))


def dynamic(scores: FloatArray, temperature: float, spread: float, exponent: float) -> Doubles:
    p = softmax(scores)
    entropy = -sum(x * math.log(x) for x in p if x > 0) / math.log(len(p))
    heat = temperature - spread + 2 * spread * entropy**exponent
    return softmax(scores.astype(np.float64) / heat)


def xtc(p: Doubles, probability: float, threshold: float) -> Doubles:
    """Over the two things that may happen."""
    chosen = sorted((i for i in range(len(p)) if p[i] >= threshold), key=lambda i: -p[i])
    excluded = p.copy()
    excluded[chosen[:-1]] = 0
    mixed: Doubles = (1 - probability) * p + probability * excluded / excluded.sum()
    return mixed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [0.5, 1.0, 2.5])
def test_top_n_sigma_is_its_definition_at_any_temperature(seed: int, n: float) -> None:
    scores = random_scores(seed, 400)
    scores[7] = -np.inf  # a processor's ban
    np.testing.assert_allclose(probabilities(Sample(top_n_sigma=n), scores), top_n_sigma(scores, n), atol=1e-6)
    hot = Sample(top_n_sigma=n, temperature=1.7)
    np.testing.assert_array_equal(probabilities(hot, scores) > 0, top_n_sigma(scores, n) > 0)


@pytest.mark.parametrize(("spread", "exponent"), [(0.5, 1.0), (1.2, 0.5), (0.3, 2.0)])
@pytest.mark.parametrize("deviation", [0.3, 3.0])
def test_dynamic_temperature_is_its_definition(spread: float, exponent: float, deviation: float) -> None:
    scores = random_scores(3, 500, deviation)
    sample = Sample(temperature=1.2, temperature_range=spread, temperature_exponent=exponent)
    np.testing.assert_allclose(probabilities(sample, scores), dynamic(scores, 1.2, spread, exponent), rtol=1e-4)


def test_dynamic_temperature_goes_from_its_lowest_to_its_highest() -> None:
    flat = np.zeros(10, np.float32)
    np.testing.assert_allclose(probabilities(Sample(temperature_range=1.0), flat), 0.1, rtol=1e-6)
    certain = np.array([60, 0, 0], np.float32)
    assert probabilities(Sample(temperature_range=1.0), certain)[0] == 1
    assert probabilities(Sample(temperature_range=0.5), flat[:1]) == 1


@pytest.mark.parametrize("probability", [0.3, 1.0])
@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_xtc_is_its_definition(seed: int, threshold: float, probability: float) -> None:
    scores = random_scores(seed, 200)
    sample = Sample(xtc_probability=probability, xtc_threshold=threshold)
    np.testing.assert_allclose(probabilities(sample, scores), xtc(softmax(scores), probability, threshold), rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_filters_after_xtc_see_what_may_happen_one_at_a_time(seed: int) -> None:
    """Both of the two distributions are cut, each by itself; drawn from, they are one."""
    scores = random_scores(seed, 200)
    order = ("top_k", "xtc", "top_p", "temperature")
    sample = Sample(top_k=50, xtc_probability=0.4, xtc_threshold=0.02, top_p=0.8, temperature=1.5, order=order)

    def rest(left: FloatArray) -> Doubles:
        return oracle(Sample(top_p=0.8, temperature=1.5, order=("top_p", "temperature")), left)

    cut = np.where(oracle(Sample(top_k=50), scores) > 0, scores, -np.inf).astype(np.float32)
    without = np.where(xtc(softmax(cut), 1, 0.02) > 0, cut, -np.inf).astype(np.float32)
    assert np.count_nonzero(without > -np.inf) < 50, "the test needs something to exclude"
    expected = 0.6 * rest(cut) + 0.4 * rest(without)
    np.testing.assert_allclose(probabilities(sample, scores), expected, rtol=1e-4, atol=1e-7)


# What must hold of any filter.


STRICTER: dict[str, tuple[dict[str, Any], ...]] = {  # each keeps no token that the one before it does not
    "temperature": ({"temperature": 0.7},),
    "top_n_sigma": ({"top_n_sigma": 3.0}, {"top_n_sigma": 1.0}, {"top_n_sigma": 0.1}),
    "top_k": ({"top_k": 40}, {"top_k": 7}, {"top_k": 1}),
    "top_p": ({"top_p": 0.9531}, {"top_p": 0.5173}, {"top_p": 0.0119}),
    "min_p": ({"min_p": 0.013}, {"min_p": 0.21}, {"min_p": 1.0}),
    "typical_p": ({"typical_p": 0.9531}, {"typical_p": 0.5173}, {"typical_p": 0.0119}),
    "epsilon_cutoff": ({"epsilon_cutoff": 0.00031}, {"epsilon_cutoff": 0.0117}, {"epsilon_cutoff": 0.9}),
    "eta_cutoff": ({"eta_cutoff": 0.00031}, {"eta_cutoff": 0.0117}, {"eta_cutoff": 0.9}),
    "xtc": ({"xtc_probability": 1.0, "xtc_threshold": 0.21}, {"xtc_probability": 1.0, "xtc_threshold": 0.017}),
}
ALL = [Sample(**options) for each in STRICTER.values() for options in each]
EXCLUDING = ("typical_p", "xtc_probability")

ties = st.lists(st.integers(-40, 40).map(lambda x: x / 4), min_size=1, max_size=200)  # exact in float32


def test_every_filter_is_under_these_properties() -> None:
    assert set(STRICTER) == set(FILTERS) == set(ORDER)


@given(ties, st.sampled_from(ALL), st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_something_is_left_and_the_most_probable_token_is(values: list[float], sample: Sample, repeats: int) -> None:
    scores = np.array(values * repeats, np.float32)
    left = probabilities(sample, scores)
    assert math.isclose(left.sum(), 1, rel_tol=1e-5)
    if not any(name in record(sample) for name in EXCLUDING):
        assert (left[scores == scores.max()] > 0).all()


@given(ties, st.sampled_from(ALL), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_where_a_token_is_does_not_matter(values: list[float], sample: Sample, random: Any) -> None:
    scores = np.array(values, np.float32)
    places = list(range(len(scores)))
    random.shuffle(places)
    moved = probabilities(sample, scores[places])
    np.testing.assert_allclose(moved, probabilities(sample, scores)[places], rtol=1e-4, atol=1e-9)


@given(ties, st.sampled_from(list(STRICTER)))
@settings(max_examples=200, deadline=None)
def test_a_stricter_filter_keeps_no_more(values: list[float], name: str) -> None:
    kept = [probabilities(Sample(**options), np.array(values, np.float32)) > 0 for options in STRICTER[name]]
    assert all((looser | ~stricter).all() for looser, stricter in pairwise(kept))


@given(ties, st.sampled_from([name for name in STRICTER if name in ("top_k", "min_p", "epsilon_cutoff")]), st.data())
@settings(max_examples=200, deadline=None)
def test_what_was_cut_once_is_not_cut_again(values: list[float], name: str, data: st.DataObject) -> None:
    sample = Sample(**data.draw(st.sampled_from(STRICTER[name])))
    scores = np.array(values, np.float32)
    once = probabilities(sample, scores)
    again = probabilities(sample, np.where(once > 0, scores, -np.inf).astype(np.float32))
    np.testing.assert_array_equal(once > 0, again > 0)


@pytest.mark.parametrize("sample", ALL, ids=lambda sample: str(record(sample)))
def test_banned_tokens_stay_banned(sample: Sample) -> None:
    scores = random_scores(1, 500)
    scores[:400] = -np.inf
    left = probabilities(sample, scores)
    assert not left[:400].any()
    np.testing.assert_allclose(left[400:], probabilities(sample, scores[400:]), rtol=1e-5)


SHARES = [each for each in ALL if not {"top_k", "epsilon_cutoff", "eta_cutoff", "xtc_probability"} & set(record(each))]


@pytest.mark.parametrize("deviation", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("sample", SHARES, ids=lambda sample: str(record(sample)))
def test_large_vocabularies_are_cut_like_small_ones(sample: Sample, deviation: float) -> None:
    """Through what only large arrays take: where each token is there 40 times, the same is left, a fortieth each."""
    scores = random_scores(2, REAL // 40, deviation)
    once, often = probabilities(sample, scores), probabilities(sample, np.tile(scores, 40))
    np.testing.assert_allclose(often.reshape(40, -1), np.tile(once / 40, (40, 1)), rtol=1e-4, atol=1e-10)


# Drawing.


DRAWN = [*SAMPLERS, Sample(top_n_sigma=1.5), Sample(temperature_range=0.5)]
DRAWN += [Sample(xtc_probability=0.5, xtc_threshold=0.05)]


@pytest.mark.parametrize("sample", DRAWN, ids=lambda sample: str(record(sample)))
def test_tokens_come_as_often_as_their_probability_says(sample: Sample) -> None:
    """Chi-square over the tokens that are expected at least five times; p > 1e-6 with a fixed seed."""
    scores = random_scores(1, 60, 1.5)
    expected = _exactly(sample, scores) * (draws := 10_000)
    rng = np.random.default_rng(7)
    counts = np.bincount([sample.choose(scores.copy(), None, rng)[0] for _ in range(draws)], minlength=60)
    assert counts[expected == 0].sum() == 0
    often = expected >= 5
    statistic = float(((counts - expected)[often] ** 2 / expected[often]).sum())
    freedom = int(often.sum())
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 12


def _exactly(sample: Sample, scores: FloatArray) -> Doubles:
    if sample.top_n_sigma:
        return top_n_sigma(scores, sample.top_n_sigma)
    if sample.temperature_range:
        return dynamic(scores, sample.temperature, sample.temperature_range, sample.temperature_exponent)
    if sample.xtc_probability:
        return xtc(softmax(scores), sample.xtc_probability, sample.xtc_threshold)
    return oracle(sample, scores)


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
    found = fewest(scores, weights.astype(np.float32), mass)
    least = scores[found].min()
    assert weights[found].sum() >= mass * weights.sum() * (1 - 1e-5)
    assert weights[scores > least].sum() < mass * weights.sum() * (1 + 1e-5)
    assert found.tolist() == np.flatnonzero(scores >= least).tolist()


def test_a_flat_distribution_has_a_large_nucleus() -> None:
    """Beyond the tokens that a nucleus is first looked for among."""
    weights = np.linspace(1, 2, REAL, dtype=np.float32)
    share = np.cumsum(np.sort(weights)[::-1], dtype=np.float64) / weights.sum(dtype=np.float64)
    assert (
        abs(len(fewest(weights, weights, 0.9)) - int(np.searchsorted(share, 0.9)) - 1) <= 2
    )  # float32 sums of 1e5 numbers


def test_the_crossing_token_is_inside_and_an_exact_hit_adds_none() -> None:
    weights = np.array([0.25, 0.5, 0.125, 0.125], np.float32)
    assert fewest(weights, weights, 0.5).tolist() == [1]
    assert fewest(weights, weights, 0.6).tolist() == [0, 1]


def test_a_very_low_score_is_a_ban_at_any_temperature() -> None:
    scores = np.full(9, np.finfo(np.float32).min)
    scores[4] = 0
    assert {Sample(temperature=1e-6).choose(scores.copy(), None, np.random.default_rng(i))[0] for i in range(9)} == {4}


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 1e-9}, "temperature is 1e-09"),
        ({"temperature_range": -0.1}, "temperature_range is -0.1; it must be from 0 to the temperature, 1.0"),
        ({"temperature": 0.0, "temperature_range": 0.5}, "temperature_range is 0.5"),
        ({"temperature_exponent": 0.0}, "temperature_exponent is 0.0; it must be above 0"),
        ({"top_n_sigma": -1.0}, "top_n_sigma is -1.0; it must be 0"),
        ({"top_k": -1}, "top_k is -1; it must be 0"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"min_p": 1.1}, "min_p is 1.1"),
        ({"typical_p": 0.0}, "typical_p is 0.0; it must be above 0"),
        ({"epsilon_cutoff": 1.0}, "epsilon_cutoff is 1.0; it must be from 0 (all tokens) to below 1"),
        ({"eta_cutoff": -0.1}, "eta_cutoff is -0.1"),
        ({"xtc_probability": 1.5}, "xtc_probability is 1.5; it must be from 0 (never) to 1"),
        ({"xtc_threshold": 0.6}, "xtc_threshold is 0.6; it must be above 0 and at most 0.5"),
        ({"order": ["top_q"]}, "order: no filter is named 'top_q'; did you mean 'top_p'?"),
        ({"order": ["top_k", "top_p", "top_k"]}, "order has 'top_k' twice; each filter is applied once"),
        ({"order": ["top_k"], "top_p": 0.9}, "'top_p' is asked for and is not in the order: top_k"),
        ({"order": [], "temperature": 0.9}, "'temperature' is asked for and is not in the order: none"),
        ({"top_q": 1.0}, "no option is named 'top_q'; did you mean 'top_p'?"),
        ({"top_k": "many"}, "top_k: expected a whole number"),
    ],
)
def test_an_option_out_of_range_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Sample, options, what="search 'sample'")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
