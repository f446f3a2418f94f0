"""tests: prompt lookup, against a search that looks everywhere."""

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
        lookup.add(token)
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
    single = max((end for end in range(1, len(text)) if text[end - 1] == text[-1]), default=0)
    found = (min(single, 1), single)
    for end in ends[::-1][:CANDIDATES]:
        same = max(size for size in range(SHORTEST, min(LONGEST, end) + 1) if text[end - size : end] == text[-size:])
        found = max(found, (same, end), key=lambda each: each[0])
    return found


def test_a_token_costs_the_same_late_in_a_long_text_as_early() -> None:
    """A text of one token has as many places that match as it has tokens; reading them all would take hours."""
    lookup = Lookup()
    lookup.begin((7,) * 100_000, 8)
    for _ in range(1000):
        lookup.add(7)
        assert lookup.promise() == LONGEST.bit_length()
