"""tests: what must hold of any filter of a distribution, whatever the scores are."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributions import probabilities, random_scores
from edgewise.options import record
from edgewise.search.sample import FILTERS, ORDER, Sample

REAL = 151_936  # tokens, of a large vocabulary in use

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


LOWEST = float(np.finfo(np.float32).min)
ranges = {
    "temperature": st.floats(-6, 3).map(lambda x: 10**x),
    "temperature_exponent": st.floats(0.1, 4),
    "top_n_sigma": st.floats(0, 5),
    "top_k": st.integers(0, 60),
    "top_p": st.floats(1e-6, 1),
    "min_p": st.floats(0, 1),
    "typical_p": st.floats(1e-6, 1),
    "epsilon_cutoff": st.floats(0, 0.999),
    "eta_cutoff": st.floats(0, 0.999),
    "xtc_probability": st.floats(0, 1),
    "xtc_threshold": st.floats(1e-4, 0.5),
}


@given(
    st.fixed_dictionaries({}, optional=ranges),
    st.floats(0, 1),
    st.permutations(ORDER),
    st.lists(st.floats(-(2.0**66), 2.0**66, width=32) | st.sampled_from([-np.inf, LOWEST]), max_size=30),
    st.integers(1, 60),
)
@settings(max_examples=300, deadline=None)
def test_any_filters_in_any_order_leave_something(
    options: dict[str, Any], spread: float, order: list[str], values: list[float], repeats: int
) -> None:
    """Of any scores, also of very low ones that mean a ban."""
    spread *= options.get("temperature", 1.0)
    if not spread:
        options.pop("temperature_exponent", None)
    if not options.get("xtc_probability"):
        options.pop("xtc_threshold", None)
    scores = np.array([*values * repeats, 0.0], np.float32)
    left = probabilities(Sample(**options, temperature_range=spread, order=tuple(order)), scores)
    assert math.isclose(left.sum(), 1, rel_tol=1e-5)
    assert not left[scores == -np.inf].any()


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
