"""tests: prompt lookup, against a search that looks everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.search.lookup import CANDIDATES, LONGEST, SHORTEST, Lookup


@given(st.lists(st.integers(0, 2), min_size=1, max_size=120), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_lookup_drafts_what_followed_the_longest_match(text: list[int], count: int) -> None:
    lookup = Lookup()
    lookup.begin(tuple(text[:5]), 3)
    for token in text[5:]:
        lookup.add((token,))
    best, place = matches(text)
    assert lookup.promise() == best.bit_length()
    expected = list(text)
    for i in range(count if best else 0):
        expected.append(expected[place + i])
    drafting = lookup.draft(count)
    with pytest.raises(StopIteration) as end:
        next(drafting)
    assert end.value.value == tuple(expected[len(text) :])


def matches(text: list[int]) -> tuple[int, int]:
    """The longest match of the end of the text, the latest of equals, by looking everywhere."""
    ends = [end for end in range(SHORTEST, len(text)) if text[end - SHORTEST : end] == text[-SHORTEST:]]
    found = (0, 0)
    for end in ends[::-1][:CANDIDATES]:
        same = max(size for size in range(SHORTEST, min(LONGEST, end) + 1) if text[end - size : end] == text[-size:])
        found = max(found, (same, end), key=lambda each: each[0])
    return found


def test_long_texts_are_looked_up_without_reading_them_again() -> None:
    """As many comparisons for a token late in a text as for an early one."""
    text = np.random.default_rng(0).integers(0, 1000, 50_000).tolist()
    lookup = Lookup()
    lookup.add(tuple(text))
    before = len(lookup._last)
    lookup.add((1,))
    assert len(lookup._last) - before <= 1
