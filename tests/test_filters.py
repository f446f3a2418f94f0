"""tests: filters of a distribution, each beside transformers or its definition; and what they refuse."""

from typing import Any

import numpy as np
import pytest

from distributions import (
    SAMPLERS,
    WARPERS,
    Doubles,
    dynamic,
    oracle,
    probabilities,
    random_scores,
    softmax,
    top_n_sigma,
    xtc,
)
from edgewise.errors import OptionError
from edgewise.options import parse, record
from edgewise.search.protocol import FloatArray
from edgewise.search.sample import Sample

# The same scores in, the same tokens left, with the same probabilities.


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
