"""tests: searches, their samplers and penalties: tables of numbers in place of a model, transformers as the oracle."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewise.errors import GenerationError, OptionError
from edgewise.options import parse, record
from edgewise.registry import registry
from edgewise.search.draw import draw, locate
from edgewise.search.filters.top_k import highest
from edgewise.search.filters.top_p import nucleus
from edgewise.search.greedy import Greedy
from edgewise.search.penalties import FrequencyPenalty, PresencePenalty, RepetitionPenalty
from edgewise.search.processors import Chain, History
from edgewise.search.protocol import Context, Emit, FloatArray, Processor, Reply, Search
from edgewise.search.sample import Sample

VOCABULARY = 50
REAL = 151_936  # tokens, of a large vocabulary in use


def table(seed: int) -> Callable[[Sequence[int]], FloatArray]:
    """A model without a memory: the scores after a token depend on the token alone."""
    scores = np.random.default_rng(seed).normal(0, 3, (VOCABULARY, VOCABULARY)).astype(np.float32)
    return lambda tokens: scores[tokens[-1]].copy()


def run(search: Search, model: Callable[[Sequence[int]], FloatArray], count: int, **context: Any) -> list[int]:
    """What a search emits for the prompt (1, 2) in `count` steps."""
    text, emitted = [], list[int]()
    flow = search.flow(Context((1, 2), count, frozenset(), **context))
    request = next(flow)
    while True:
        emitted += [token for emit in request.emit for token in emit.tokens]
        text += [token for extend in request.extend for token in extend.tokens]
        logits = tuple(model(text)[None] for _ in request.extend)
        stopped = frozenset({0}) if len(emitted) >= count else frozenset[int]()
        try:
            request = flow.send(Reply(logits, None, stopped))
        except StopIteration:
            return emitted


def test_greedy_takes_the_best_at_each_step() -> None:
    model = table(0)
    tokens = [2]
    for _ in range(20):
        tokens.append(int(model(tokens).argmax()))
    assert run(Greedy(), model, 20) == tokens[1:]


def test_a_search_appends_its_tokens_to_one_row_in_place() -> None:
    flow = Greedy().flow(Context((7, 8), 3, frozenset()))
    first = next(flow).extend[0]
    assert (first.tokens, first.parent) == ((7, 8), None)
    emitted = flow.send(Reply((np.array([[0, 1, 0]], np.float32),)))
    assert (emitted.emit, emitted.extend) == ((Emit(0, (1,)),), ())
    then = flow.send(Reply()).extend[0]
    assert (then.tokens, then.parent, then.row) == ((1,), first.row, first.row)


def test_temperature_zero_and_top_k_one_are_greedy() -> None:
    assert run(Sample(temperature=0), table(3), 20) == run(Greedy(), table(3), 20)
    assert run(Sample(top_k=1), table(3), 20) == run(Greedy(), table(3), 20)


def test_the_same_seed_gives_the_same_tokens_and_another_gives_others() -> None:
    def sampled(seed: int) -> list[int]:
        return run(Sample(), table(0), 30, rng=np.random.default_rng(seed))

    assert sampled(5) == sampled(5)
    assert sampled(5) != sampled(6)


SAMPLERS = [
    Sample(),
    Sample(temperature=0.5),
    Sample(temperature=2.0),
    Sample(top_k=5),
    Sample(top_p=0.7),
    Sample(min_p=0.1),
    Sample(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05),
]


@pytest.mark.parametrize("sample", SAMPLERS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_what_may_be_drawn_is_what_transformers_leaves(sample: Sample, seed: int) -> None:
    """The same scores in: the same tokens left, with the same probabilities (float32, so to 1e-6)."""
    scores = np.random.default_rng(seed).normal(0, 3, 3000).astype(np.float32)
    np.testing.assert_allclose(probabilities(sample, scores), oracle(sample, scores), rtol=1e-5, atol=1e-7)


def probabilities(sample: Sample, scores: FloatArray) -> NDArray[np.float64]:
    ids, weights = sample.candidates(scores.copy())
    found = np.zeros(len(scores))
    found[slice(None) if ids is None else ids] = weights / weights.sum(dtype=np.float64)
    return found


def oracle(sample: Sample, scores: FloatArray) -> NDArray[np.float64]:
    """The warpers of transformers, in the order in which its `generate` has them."""
    warpers: list[Any] = [transformers.TemperatureLogitsWarper(sample.temperature)]
    if sample.top_k:
        warpers.append(transformers.TopKLogitsWarper(sample.top_k))
    if sample.top_p < 1:
        warpers.append(transformers.TopPLogitsWarper(sample.top_p))
    if sample.min_p:
        warpers.append(transformers.MinPLogitsWarper(sample.min_p))
    chain: Any = transformers.LogitsProcessorList(warpers)
    left = chain(torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(scores[None].copy()))
    found: NDArray[np.float64] = left.double().softmax(-1)[0].numpy()
    return found


@pytest.mark.parametrize("sample", SAMPLERS, ids=str)
def test_tokens_come_as_often_as_their_probability_says(sample: Sample) -> None:
    """Chi-square over the tokens that are expected at least five times; p > 1e-6 with a fixed seed."""
    scores = np.random.default_rng(1).normal(0, 1.5, 60).astype(np.float32)
    expected = oracle(sample, scores) * (draws := 20_000)
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
    weights = np.exp(np.array(values * repeats, np.float32))
    total = weights.sum(dtype=np.float64)
    inside = weights[nucleus(weights, mass)].astype(np.float64)
    assert inside.sum() >= mass * total * (1 - 1e-5)
    assert inside[inside > inside.min()].sum() < mass * total * (1 + 1e-5)
    assert inside.min() > np.delete(weights, nucleus(weights, mass)).max(initial=0)


def test_a_flat_distribution_has_a_large_nucleus() -> None:
    """Beyond the tokens that a nucleus is first looked for among."""
    weights = np.linspace(1, 2, REAL, dtype=np.float32)
    share = np.cumsum(np.sort(weights)[::-1], dtype=np.float64) / weights.sum(dtype=np.float64)
    assert abs(len(nucleus(weights, 0.9)) - int(np.searchsorted(share, 0.9)) - 1) <= 2  # float32 sums of 1e5 numbers


def test_the_crossing_token_is_inside_and_an_exact_hit_adds_none() -> None:
    weights = np.array([0.25, 0.5, 0.125, 0.125], np.float32)
    assert nucleus(weights, 0.5).tolist() == [1]
    assert nucleus(weights, 0.6).tolist() == [0, 1]


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    scores = np.random.default_rng(0).normal(0, 3, VOCABULARY).astype(np.float32)
    tokens = (3, 4, 3, 3, 9, 49)
    theirs: Any = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    expected = theirs(torch.tensor([tokens]), torch.from_numpy(scores[None].copy()))[0].numpy()
    processor = RepetitionPenalty(penalty)
    state = processor.advance(processor.start(tokens[:2]), tokens[2:])
    np.testing.assert_allclose(processor.apply(state, scores.copy()), expected, rtol=1e-6)


def test_presence_counts_a_token_once_frequency_each_time_and_neither_the_prompt() -> None:
    for processor, expected in ((PresencePenalty(0.5), [0, 0, 0.5, 0.5]), (FrequencyPenalty(0.5), [0, 0, 1.5, 0.5])):
        state = processor.advance(processor.advance(processor.start((0, 1, 1)), (2, 3)), (2, 2))
        np.testing.assert_allclose(processor.apply(state, np.zeros(4, np.float32)), -np.array(expected))


def test_penalties_change_what_a_search_says() -> None:
    def stuck(tokens: Sequence[int]) -> FloatArray:
        return np.array([1.0, 0.9, 0.8, 0.0], np.float32)

    assert run(Greedy(), stuck, 4) == [0, 0, 0, 0]
    assert run(Greedy(), stuck, 4, processors=(PresencePenalty(0.15),)) == [0, 1, 0, 0]
    assert run(Greedy(), stuck, 4, processors=(FrequencyPenalty(0.15),)) == [0, 1, 0, 2]
    assert run(Greedy(), stuck, 3, processors=(RepetitionPenalty(2.0),)) == [0, 0, 0]  # 1 and 2 are in the prompt
    both = (RepetitionPenalty(2.0), PresencePenalty(0.2))
    assert run(Sample(temperature=0), stuck, 3, processors=both) == [0, 1, 2]


@given(st.lists(st.lists(st.integers(0, 9), max_size=70), max_size=20), st.data())
@settings(max_examples=100, deadline=None)
def test_a_history_is_a_value(pieces: list[list[int]], data: st.DataObject) -> None:
    """Grown from any earlier one, each holds what was appended on its own way, then and later."""
    histories: list[tuple[History, list[int]]] = [(History((1, 2)), [1, 2])]
    for piece in pieces:
        history, tokens = data.draw(st.sampled_from(histories))
        histories.append((history.append(tuple(piece)), tokens + piece))
    for history, tokens in histories:
        assert history.tokens.tolist() == tokens


class Ban:
    """Bans some tokens; the simplest processor."""

    def __init__(self, *tokens: int) -> None:
        self._tokens = list(tokens)

    def start(self, prompt: tuple[int, ...]) -> None: ...

    def advance(self, state: None, tokens: tuple[int, ...]) -> None: ...

    def apply(self, state: None, logits: FloatArray) -> FloatArray:
        logits[self._tokens] = -np.inf
        return logits


@pytest.mark.parametrize("search", [Greedy(), Sample(), Sample(top_k=10), Sample(top_p=0.9), Sample(min_p=0.1)])
def test_a_caller_s_processors_apply_in_every_search(search: Search) -> None:
    banned = (3, 6, 7, 16)
    unbanned = run(search, table(0), 300)
    assert set(unbanned) & set(banned), "the test needs a search that would choose them"
    assert not set(run(search, table(0), 300, processors=(Ban(*banned),))) & set(banned)


def test_a_search_left_without_a_token_says_so() -> None:
    for search in (Greedy(), Sample()):
        with pytest.raises(GenerationError, match="all are banned"):
            run(search, table(0), 1, processors=(Ban(*range(VOCABULARY)),))


def test_a_chain_of_none_changes_nothing() -> None:
    scores = np.arange(4, dtype=np.float32)
    chain = Chain(())
    assert chain.apply(chain.advance(chain.start((1,)), (2,)), scores) is scores


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 1e-9}, "temperature is 1e-09"),
        ({"top_k": -1}, "top_k is -1; it must be 0"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"min_p": 1.1}, "min_p is 1.1"),
        ({"top_q": 1.0}, "no option is named 'top_q'; did you mean 'top_p'?"),
        ({"top_k": "many"}, "top_k: expected a whole number"),
    ],
)
def test_an_option_out_of_range_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Sample, options, what="search 'sample'")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_search_is_found_by_its_name_and_written_back() -> None:
    for name in ("greedy", "sample"):
        search = registry().searches.get(name)
        assert search.name == name
        assert dataclasses.is_dataclass(search)
    sample = Sample(temperature=0.7, top_p=0.9)
    assert parse(Sample, record(sample), what="sample") == sample


def test_every_processor_is_found_by_its_name() -> None:
    for name in ("frequency_penalty", "presence_penalty", "repetition_penalty"):
        processor: Processor = parse(registry().processors.get(name), {"penalty": 1.5}, what=name)
        state = processor.advance(processor.start((1,)), (2,))
        assert processor.apply(state, np.ones(4, np.float32))[2] < 1


def test_a_very_low_score_is_a_ban_at_any_temperature() -> None:
    scores = np.full(9, np.finfo(np.float32).min)
    scores[4] = 0
    assert {Sample(temperature=1e-6).choose(scores.copy(), None, np.random.default_rng(i))[0] for i in range(9)} == {4}
