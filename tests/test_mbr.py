"""tests: minimum Bayes risk: utilities by their definitions, and the choice by brute force."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.bundle.read import Bundle
from edgewise.errors import GenerationError, OptionError
from edgewise.registry import registry
from edgewise.runtime.runner import Runner
from edgewise.search.beam import Beam
from edgewise.search.mbr import Mbr
from edgewise.search.named import find_search
from edgewise.search.protocol import Context, LogProb
from edgewise.search.sample import Sample
from edgewise.search.samples import Samples
from edgewise.search.utilities import UTILITIES, chrf, exact, token_f1
from tables import Letters, Texts, search, table

VOCABULARY = Letters().size
texts = st.text(alphabet="ab c", max_size=12)


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 100.0),
        ("the cat sat", "a cat sat on the mat", 37.01842715509503),
        ("ab", "abc", 63.636363636363626),
        ("a b c", "abc", 100.0),
        ("hello", "world", 8.0),
        ("", "abc", 0.0),
        ("   ", "a", 0.0),
        ("x", "x", 100.0),
        ("Das ist ein kleines Haus.", "Das ist ein Haus, klein.", 58.96637226278298),
        ("na\u00efve caf\u00e9 \U0001f600", "naive cafe \U0001f600", 36.382275132275126),
    ],
)
def test_chrf_is_that_of_sacrebleu(hypothesis: str, reference: str, expected: float) -> None:
    """What `sacrebleu.sentence_chrf` (2.6.0) gives, of 100."""
    assert chrf(hypothesis, reference) == pytest.approx(expected / 100, rel=1e-12)


@given(texts, texts)
def test_token_f1_is_the_harmonic_mean_of_precision_and_recall(hypothesis: str, reference: str) -> None:
    words, others = hypothesis.split(), reference.split()
    matched = sum(min(words.count(word), others.count(word)) for word in {*words, *others})
    if matched:
        precision, recall = matched / len(words), matched / len(others)
        assert token_f1(hypothesis, reference) == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert token_f1(hypothesis, reference) == (not words and not others)


@given(texts, texts)
def test_utilities_are_from_0_to_1_and_a_text_agrees_with_itself(text: str, other: str) -> None:
    for utility in UTILITIES.values():
        assert 0 <= utility(text, other) <= 1 + 1e-12
        assert utility(text + "a", text + "a") == pytest.approx(1)
    assert exact(f" {text}\n", text) == 1


def drawn(how: Samples, seed: int, limit: int) -> list[tuple[int, ...]]:
    """The samples themselves, with the same random numbers."""
    found = search(how, Texts(table(seed, VOCABULARY, 3.0)), limit=limit, eos=(3,), rng=np.random.default_rng(seed))
    return [each.tokens for each in found]


def mbr(seed: int, limit: int, **options: Any) -> tuple[Any, ...]:
    how = Mbr(**options).bind(Letters())
    texts = Texts(table(seed, VOCABULARY, 3.0))
    found = search(how, texts, limit=limit, eos=(3,), rng=np.random.default_rng(seed))
    assert texts.most <= how.samples
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("utility", ["chrf", "exact", "token_f1"])
def test_the_best_is_that_of_the_definition(seed: int, utility: str) -> None:
    samples = drawn(Samples(search=Sample(temperature=0.8), n=7), seed, 6)
    texts = [Letters().decode(tokens) for tokens in samples]
    matrix = np.array([[UTILITIES[utility](text, other) for other in texts] for text in texts])
    found = mbr(seed, 6, search=Sample(temperature=0.8), samples=7, utility=utility, num_return=7)
    expected = dict(sorted(zip(samples, matrix.mean(axis=1), strict=True), key=lambda pair: pair[1]))
    assert {each.tokens: each.score for each in found} == pytest.approx(expected)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert found[0].tokens == samples[int(matrix.mean(axis=1).argmax())]


def test_votes_are_counted() -> None:
    """Of one token each, the most frequent sample wins, with its share."""
    samples = drawn(Samples(search=Sample(), n=40), 0, 1)
    winner = max(samples, key=samples.count)
    found = mbr(0, 1, search=Sample(), samples=40, utility="exact")
    assert len(found) == 1
    assert (found[0].tokens, found[0].score) == (winner, pytest.approx(samples.count(winner) / 40))


def test_any_function_of_two_texts_is_a_utility() -> None:
    def longest(hypothesis: str, reference: str) -> float:
        return len(hypothesis)

    found = mbr(1, 9, search=Sample(), samples=9, utility=longest, num_return=9)
    assert [each.score for each in found] == [len(each.tokens) for each in found]


def test_samples_say_what_ended_them_and_how_probable_they_were() -> None:
    def ended(tokens: tuple[int, ...], logprobs: Sequence[LogProb]) -> str | None:
        assert len(logprobs) == len(tokens)
        return "stop" if tokens[-1] == 5 else None

    how = Mbr(search=Sample(temperature=2.0), samples=30, num_return=30).bind(Letters())
    found = search(how, Texts(table(0, VOCABULARY)), limit=5, eos=(3, 4), ended=ended, logprobs=0)
    assert {each.reason for each in found} == {"stop", "eos", "length"}
    for each in found:
        assert [chosen.token for chosen in each.logprobs] == list(each.tokens)
        assert not {3, 4} & set(each.tokens)
        assert (each.reason == "stop") == (5 in each.tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples is 1; it must be 2 or more"),
        ({"samples": 4, "num_return": 5}, "num_return is 5; it must be from 1 to samples (4)"),
        ({"utility": "chrff"}, "no utility is named 'chrff'; did you mean 'chrf'?"),
        ({"utility": 7}, "utility"),
        ({"search": "greedy"}, "search 'greedy' gives the same text each time"),
        ({"search": "beam"}, "search 'beam' gives its sequences together"),
        ({"search": {"name": "sample", "top_q": 1}}, "no option is named 'top_q'"),
    ],
)
def test_what_does_not_go_together_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        find_search({"name": "mbr", **options}, Letters())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_found_by_its_name_and_must_be_bound() -> None:
    assert registry().searches.get("mbr") is Mbr
    with pytest.raises(GenerationError, match="search 'mbr' has not been bound to a vocabulary"):
        next(Mbr(search=Sample()).flow(Context((1,), 1, frozenset())))
    with pytest.raises(OptionError, match="search 'beam' gives its sequences together"):
        Mbr(search=Beam())


def test_a_bundle_votes(pycoder_bundle: Bundle) -> None:
    """The winner of a vote is among the samples, with the share that it has there."""
    options: dict[str, Any] = {"max_tokens": 3, "seed": 5}
    with Runner.open(pycoder_bundle.path, threads=1) as runner:
        samples = [each.text for each in runner.generate("import ", search="sample", n=12, **options).completions]
        vote = {"name": "mbr", "search": "sample", "samples": 12, "utility": "exact"}
        result = runner.generate("import ", search=vote, **options)
    assert result.completions[0].score == pytest.approx(max(map(samples.count, samples)) / 12)
    assert result.finish_reason == "length"
