"""tests: DRY beside its definition, slow and obvious; breakers, and how long repetitions are."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewise.search.dry import Dry
from edgewise.search.protocol import FloatArray
from edgewise.search.suffixes import grown, suffixes
from processed import LETTERS, SIZE, applied, random_scores, texts, tokens


def slow_dry(text: list[int], scores: FloatArray, dry: Dry, breakers: list[int]) -> NDArray[np.float64]:
    """llama.cpp's definition, for breakers of one token: every place compared with the end, token by token."""
    expected = scores.astype(np.float64)
    text = text[-dry.window :] if dry.window else text
    longest: dict[int, int] = {}
    for place in range(1, len(text)):
        length = 0
        while length < place and text[place - 1 - length] == text[-1 - length] and text[-1 - length] not in breakers:
            length += 1
        if length >= dry.allowed_length and text[place] not in breakers:
            longest[text[place]] = max(length, longest.get(text[place], 0))
    for token, length in longest.items():
        expected[token] -= dry.multiplier * dry.base ** (length - dry.allowed_length)
    return expected


@given(texts, texts, st.integers(0, 99), st.integers(1, 4), st.sampled_from([0, 1, 5, 20]), st.sampled_from(["", "d"]))
@settings(max_examples=300, deadline=None)
def test_dry_is_its_definition(
    prompt: list[int], new: list[int], seed: int, allowed: int, window: int, breaker: str
) -> None:
    dry = Dry(allowed_length=allowed, window=window, breakers=tuple(breaker))
    scores = random_scores(seed)
    expected = slow_dry(prompt + new, scores, dry, [LETTERS.encode(each)[0] for each in breaker])
    np.testing.assert_allclose(applied(dry.bind(LETTERS), prompt, new, scores), expected, rtol=1e-5, atol=1e-5)


def test_dry_makes_the_next_of_a_repetition_less_probable_the_longer_it_is() -> None:
    dry = Dry(multiplier=1.0, base=2.0, allowed_length=2, breakers=()).bind(LETTERS)
    scores = np.zeros(SIZE, np.float32)
    text = LETTERS.encode("abcde abcd")
    assert applied(dry, text, (), scores)[4] == -4  # "abcd": 2 more than 2
    assert applied(dry, LETTERS.encode("abcde cd"), (), scores)[4] == -1
    assert not applied(dry, LETTERS.encode("abcde d"), (), scores).any()


def test_a_breaker_of_several_tokens_ends_a_repetition() -> None:
    def penalized(text: str, *breakers: str) -> float:
        dry = Dry(multiplier=1.0, base=2.0, allowed_length=1, breakers=breakers).bind(LETTERS)
        return -float(applied(dry, LETTERS.encode(text), (), np.zeros(SIZE, np.float32))[5])

    text = "abcdef abcde"
    assert penalized(text) == 16  # five tokens
    assert penalized(text, "bc") == 2  # "de"
    assert penalized(text, "bc", "q") == 2
    assert penalized(text, "de") == 0
    assert penalized(text, "f") == 0, "what is a breaker itself is not penalized"


def test_a_very_long_repetition_has_a_finite_penalty() -> None:
    dry = Dry(breakers=()).bind(LETTERS)
    found = applied(dry, (1,) * 3000, (), np.zeros(SIZE, np.float32))
    assert np.isfinite(found).all()
    assert found[1] < -1e20


@given(texts, st.lists(tokens, max_size=10))
@settings(max_examples=200, deadline=None)
def test_suffixes_are_those_that_comparing_finds_and_grow_by_a_token(prompt: list[int], new: list[int]) -> None:
    lengths = suffixes(tuple(prompt))
    for i, token in enumerate(new):
        before = np.array(prompt + new[:i], np.int64)
        lengths = grown(lengths, before == token)
    text = prompt + new

    def common(end: int) -> int:
        length = 0
        while length < end and text[end - 1 - length] == text[-1 - length]:
            length += 1
        return length

    assert lengths.tolist() == [common(end) for end in range(1, len(text))]
