"""tests: processors of scores: transformers as the oracle, or the definition, slow and obvious; states as values."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.errors import OptionError
from edgewise.options import parse
from edgewise.registry import registry
from edgewise.runtime.generation import find_processors
from edgewise.search.bans import AllowedTokens, BadWords, SuppressTokens
from edgewise.search.bias import Bias, LogitBias
from edgewise.search.dry import Dry
from edgewise.search.length import LengthDecay, MinLength
from edgewise.search.ngrams import NoRepeatNgram
from edgewise.search.penalties import FrequencyPenalty, PresencePenalty, RepetitionPenalty
from edgewise.search.processors import Chain, History
from edgewise.search.protocol import Processor
from processed import ENDED, LETTERS, SIZE, applied, random_scores, texts, tokens

# The same scores in, the same scores out, as transformers.


ENDS = (2, 3)
ORACLES: dict[str, tuple[Processor, Any]] = {
    "repetition, less": (RepetitionPenalty(1.3), transformers.RepetitionPenaltyLogitsProcessor(1.3)),
    "repetition, more": (RepetitionPenalty(0.5), transformers.RepetitionPenaltyLogitsProcessor(0.5)),
    **{f"{n}-gram": (NoRepeatNgram(n), transformers.NoRepeatNGramLogitsProcessor(n)) for n in range(1, 5)},
    "bias": (
        LogitBias(tokens={0: -2.0, 2: 1.5}, sequences=(Bias((0, 1), 3.0), Bias((1, 0, 1), -4.0), Bias((2, 1), -1.0))),
        transformers.SequenceBiasLogitsProcessor(
            [[[0], -2.0], [[2], 1.5], [[0, 1], 3.0], [[1, 0, 1], -4.0], [[2, 1], -1.0]]
        ),
    ),
    "bad words": (
        BadWords(sequences=((0, 1), (3,), (1, 1, 2))),
        transformers.NoBadWordsLogitsProcessor([[0, 1], [3], [1, 1, 2]]),
    ),
    "bad words and an end": (
        BadWords(sequences=((0, 1), (9,), (9, 9))),
        transformers.NoBadWordsLogitsProcessor([[0, 1], [9], [9, 9]], eos_token_id=9),
    ),
    "suppressed": (SuppressTokens((0, 5)), transformers.SuppressTokensLogitsProcessor([0, 5])),
    "suppressed at the beginning": (
        SuppressTokens((0, 5), begin=True),
        transformers.SuppressTokensAtBeginLogitsProcessor([0, 5], 2),
    ),
    "allowed": (AllowedTokens((0, 2, 5)), transformers.PrefixConstrainedLogitsProcessor(lambda *_: [0, 2, 5], 1)),
    "length": (MinLength(tokens=6, eos=ENDS), transformers.MinLengthLogitsProcessor(6, [2, 3])),
    "new length": (MinLength(new_tokens=4, eos=ENDS), transformers.MinNewTokensLengthLogitsProcessor(2, 4, [2, 3])),
    "decay": (LengthDecay(3, 1.4, eos=ENDS), transformers.ExponentialDecayLengthPenalty((3, 1.4), [2, 3], 2)),
    "slow decay": (LengthDecay(0, 0.8, eos=ENDS), transformers.ExponentialDecayLengthPenalty((0, 0.8), [2, 3], 2)),
}


@pytest.mark.parametrize("name", ORACLES)
@given(new=st.lists(tokens, max_size=12), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_scores_are_those_of_transformers(name: str, new: list[int], seed: int) -> None:
    """After a prompt of two tokens; to 1e-6, in float32: several biases of a token are added in another order."""
    ours, theirs = ORACLES[name]
    bind = getattr(ours, "bind", None)
    scores = random_scores(seed)
    expected = theirs(torch.tensor([[1, 0, *new]]), torch.from_numpy(scores[None].copy()))[0].numpy()
    found = applied(bind(ENDED) if bind else ours, (1, 0), new, scores)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_ban_stays_where_an_end_becomes_more_probable() -> None:
    scores = random_scores(0)
    scores[2] = -np.inf
    expected = ORACLES["decay"][1](torch.tensor([[1, 0, *[5] * 9]]), torch.from_numpy(scores[None].copy()))[0].numpy()
    np.testing.assert_allclose(applied(LengthDecay(3, 1.4, eos=ENDS), (1, 0), [5] * 9, scores), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ORACLES)
def test_a_very_low_score_is_a_ban_and_stays_one(name: str) -> None:
    low = np.full(SIZE, np.finfo(np.float32).min)
    assert (applied(ORACLES[name][0], (1, 0), (0, 1, 2, 3, 2, 3), low) < -1e30).all()


def test_an_end_that_has_become_ever_more_probable_is_still_a_number() -> None:
    scores = random_scores(0)
    found = applied(LengthDecay(0, 2.0, eos=(2,)), (1, 0), [5] * 5000, scores)
    assert np.isfinite(found).all()
    assert found.argmax() == 2


# Penalties that count.


@given(texts, texts, st.integers(0, 9), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_penalties_are_their_definition_in_any_window(
    prompt: list[int], new: list[int], window: int, seed: int
) -> None:
    """Presence counts a token once, frequency each time, and neither the prompt; repetition once, the prompt too."""
    scores = random_scores(seed)
    recent = new[-window:] if window else new
    everything = (prompt + new)[-window:] if window else prompt + new
    expected = scores.astype(np.float64)
    for token in set(everything):
        expected[token] = expected[token] * 1.5 if scores[token] < 0 else expected[token] / 1.5
    np.testing.assert_allclose(applied(RepetitionPenalty(1.5, window), prompt, new, scores), expected, rtol=1e-6)
    counts = np.array([recent.count(token) for token in range(SIZE)])
    np.testing.assert_allclose(
        applied(PresencePenalty(0.5, window), prompt, new, scores), scores - 0.5 * (counts > 0), rtol=1e-6
    )
    np.testing.assert_allclose(
        applied(FrequencyPenalty(0.5, window), prompt, new, scores), scores - 0.5 * counts, rtol=1e-5, atol=1e-6
    )


# Texts, and what the runner gives.


def test_texts_are_looked_up() -> None:
    scores = np.zeros(SIZE, np.float32)
    bias = LogitBias(tokens={0: 1.0}, texts={"b": 2.0, "cd": 3.0}).bind(LETTERS)
    assert applied(bias, (), LETTERS.encode("xc"), scores)[:4].tolist() == [1, 2, 0, 3]
    words = BadWords(texts=("cd",)).bind(LETTERS)
    assert words.sequences == (LETTERS.encode("cd"), LETTERS.encode(" cd"))
    assert applied(words, LETTERS.encode("c"), (), scores)[3] == -np.inf
    allowed = AllowedTokens(tokens=(9,), texts=("yes", "no")).bind(LETTERS)
    left = np.flatnonzero(applied(allowed, (), (), scores) > -np.inf)
    assert LETTERS.decode(left.tolist()) == "ejnosy"


def test_the_ends_are_those_of_the_bundle_unless_they_are_given() -> None:
    assert MinLength(new_tokens=1).bind(ENDED).eos == (9,)
    assert LengthDecay(1, 2.0, eos=(4,)).bind(ENDED).eos == (4,)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (LogitBias(texts={"a": 1.0}), "logit_bias was given texts and no vocabulary"),
        (BadWords(texts=("a",)), "bad_words was given texts and no vocabulary"),
        (AllowedTokens(texts=("a",)), "allowed_tokens was given texts and no vocabulary"),
        (Dry(), "dry was given breakers and no vocabulary"),
        (MinLength(new_tokens=1), "min_length needs the tokens that end a sequence"),
        (LengthDecay(1, 2.0), "length_decay needs the tokens that end a sequence"),
    ],
)
def test_what_needs_a_bundle_says_so_without_one(processor: Processor, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        processor.start((1,))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "repetition_penalty", "penalty": 0.0}, "repetition_penalty is 0.0; it must be above 0"),
        ({"name": "repetition_penalty", "window": -1}, "the window of repetition_penalty is -1; it must be 0"),
        ({"name": "presence_penalty", "penalty": math.nan}, "presence_penalty is nan"),
        ({"name": "frequency_penalty", "penalty": math.inf}, "frequency_penalty is inf"),
        ({"name": "no_repeat_ngram", "size": 0}, "the size of an n-gram is 0; it must be 1 or more"),
        ({"name": "no_repeat_ngram"}, "size must be given"),
        ({"name": "dry", "base": 0.5}, "the base of dry is 0.5; it must be 1 or above"),
        ({"name": "dry", "multiplier": -1.0}, "the multiplier of dry is -1.0"),
        ({"name": "dry", "allowed_length": 0}, "the allowed_length of dry is 0; it must be 1"),
        ({"name": "dry", "breakers": [""]}, "a breaker of dry is an empty text"),
        ({"name": "logit_bias", "tokens": {"3": math.nan}}, r"the bias of \[3\] is nan"),
        ({"name": "logit_bias", "tokens": {"99": 1.0}}, "token 99 does not exist: the vocabulary has 27, from 0 on"),
        ({"name": "logit_bias", "sequences": [{"tokens": [], "bias": 1.0}]}, "a bias is for no tokens"),
        ({"name": "logit_bias", "texts": {"": 1.0}}, "the text '' has no tokens"),
        ({"name": "bad_words", "sequences": [[]]}, "a bias is for no tokens"),
        ({"name": "bad_words", "sequences": [[1, 99]]}, "token 99 does not exist"),
        ({"name": "suppress_tokens", "tokens": [-1]}, "token -1 does not exist"),
        ({"name": "allowed_tokens"}, "allowed_tokens is empty; give at least one token"),
        ({"name": "min_length", "new_tokens": -1}, "min_length is -1; it must be 0"),
        ({"name": "length_decay", "begin": -1, "factor": 1.0}, "length_decay begins at -1"),
        ({"name": "length_decay", "begin": 1, "factor": 0.0}, "the factor of length_decay is 0.0"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        find_processors([given], LETTERS)
    assert "\n" not in str(caught.value)


# All of them, whatever they do.


EACH: dict[str, dict[str, Any]] = {
    "allowed_tokens": {"tokens": [0, 1, 2]},
    "bad_words": {"texts": ["ab", "c"]},
    "dry": {"breakers": ["d"]},
    "frequency_penalty": {"penalty": 0.5, "window": 4},
    "length_decay": {"begin": 2, "factor": 1.1},
    "logit_bias": {"tokens": {"1": 2.0}, "texts": {"ab": -1.0}},
    "min_length": {"new_tokens": 5},
    "no_repeat_ngram": {"size": 2},
    "presence_penalty": {"penalty": 0.5},
    "repetition_penalty": {"penalty": 1.5},
    "suppress_tokens": {"tokens": [0], "begin": True},
}


def made(name: str) -> Processor:
    processor: Any = parse(registry().processors.get(name), EACH[name], what=name)
    return processor.bind(ENDED) if hasattr(processor, "bind") else processor  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", EACH)
@given(st.lists(st.lists(tokens, max_size=5), max_size=8), st.data())
@settings(max_examples=25, deadline=None)
def test_a_state_is_a_value(name: str, pieces: list[list[int]], data: st.DataObject) -> None:
    """Grown from any earlier one, each stays what it was, and is what the same tokens give at once."""
    processor = made(name)
    scores = random_scores(0)
    states: list[tuple[Any, list[int]]] = [(processor.start((1, 2)), [])]
    for piece in pieces:
        state, new = data.draw(st.sampled_from(states))
        states.append((processor.advance(state, tuple(piece)), new + piece))
    for state, new in states:
        found = processor.apply(state, scores.copy())
        np.testing.assert_array_equal(found, applied(processor, (1, 2), new, scores))


@pytest.mark.parametrize("name", EACH)
def test_a_processor_found_by_its_name_does_something(name: str) -> None:
    processor, scores = made(name), np.full(SIZE, 2.0, np.float32)
    assert any((applied(processor, (1, 0), [0, 1] * n, scores) != scores).any() for n in range(3))


@given(st.lists(st.lists(st.integers(0, 9), max_size=70), max_size=20), st.data())
@settings(max_examples=100, deadline=None)
def test_a_history_is_a_value(pieces: list[list[int]], data: st.DataObject) -> None:
    """Grown from any earlier one, each holds what was appended on its own way, then and later."""
    histories: list[tuple[History, list[int]]] = [(History((1, 2)), [1, 2])]
    for piece in pieces:
        history, known = data.draw(st.sampled_from(histories))
        histories.append((history.append(tuple(piece)), known + piece))
    for history, known in histories:
        assert history.tokens.tolist() == known
        assert history.last(3).tolist() == known[-3:]
        assert history.last(0).tolist() == known


def test_a_chain_of_none_changes_nothing() -> None:
    scores = np.arange(4, dtype=np.float32)
    chain = Chain(())
    assert chain.apply(chain.advance(chain.start((1,)), (2,)), scores) is scores


def test_a_chain_applies_its_processors_in_order() -> None:
    double, add = RepetitionPenalty(0.5), LogitBias(tokens={1: 3.0})
    scores = np.ones(SIZE, np.float32)
    assert applied(Chain((double, add)), (1,), (), scores)[1] == 5
    assert applied(Chain((add, double)), (1,), (), scores)[1] == 8
