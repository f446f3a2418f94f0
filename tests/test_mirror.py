"""tests: mirrored searches: companions hold what they should, whatever a search does with its rows."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.errors import GenerationError
from edgewise.search.mirror import mirror
from edgewise.search.protocol import Extend, FloatArray, Flow, Reply, Request
from tables import Texts

PROMPT, NEGATIVE = (1, 2, 3), (7, 8)
Asked = tuple[tuple[Extend, ...], tuple[tuple[int, int], ...]]


def first(text: tuple[int, ...]) -> FloatArray:
    return np.array([float(hash(text) % 1009)], np.float32)


def second(text: tuple[int, ...]) -> FloatArray:
    return np.array([float(hash((text, 1)) % 1009)], np.float32)


def ask(asked: Sequence[Asked], seen: list[tuple[FloatArray, ...]]) -> Flow:
    """A search that asks for what it was told to, and keeps what it is answered."""
    for extend, release in asked:
        reply = yield Request(extend, release)
        seen.append(tuple(logits.copy() for logits in reply.logits))
    return ()


def answered(flow: Flow, model: Texts) -> None:
    try:
        request = next(flow)
        while True:
            for place in request.release:
                model.release(*place)
            request = flow.send(Reply(model.extend(request.extend)))
    except StopIteration:
        return


@st.composite
def searches(draw: st.DrawFn) -> list[Asked]:
    """Rows that begin (at once, or in two parts), fork, rewind, are scored at several places, and end."""
    texts: dict[int, tuple[int, ...]] = {}
    asked = []
    for _ in range(draw(st.integers(1, 8))):
        release = tuple((0, row) for row in list(texts) if len(texts) > 1 and draw(st.booleans()))[:1]
        for _, row in release:
            del texts[row]
        grown = {}
        for row in draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)):
            parent = draw(st.sampled_from([None, *texts]))
            text = () if parent is None else texts[parent]
            kept = draw(st.integers(0, len(text)))
            new = (PROMPT[kept:] + tuple(draw(st.lists(st.integers(0, 9), max_size=3)))) or (4,)
            new = new[: draw(st.integers(1, len(new)))]
            length = -1 if kept == len(text) and draw(st.booleans()) else kept
            grown[row] = text[:kept] + new
            count = draw(st.integers(1, len(new)))
            asked.append((Extend(row, new, parent, length if parent is not None else -1, count), release))
            release = ()
            texts[row] = grown[row]
    return [((extend,), release) for extend, release in asked]


@given(searches(), st.sampled_from([0, 1]))
@settings(max_examples=300, deadline=None)
def test_each_place_after_the_prompt_is_scored_with_the_companion_s(asked: list[Asked], model: int) -> None:
    seen: list[tuple[FloatArray, ...]] = []
    flow = mirror(ask(asked, seen), lambda own, other: own + 2000 * other, model=model, prompt=PROMPT, instead=NEGATIVE)
    answered(flow, Texts(first, second))
    plain = Texts(first)
    for ((extend,), _), (found,) in zip(asked, seen, strict=True):
        plain.extend((extend,))
        text = plain.rows[0, extend.row]
        for place, score in zip(range(len(text) - extend.scores + 1, len(text) + 1), found[:, 0], strict=True):
            expected = first(text[:place])[0]
            if place >= len(PROMPT):
                expected += 2000 * (second if model else first)(NEGATIVE + text[len(PROMPT) : place])[0]
            assert score == expected


def test_rows_that_change_places_in_one_request_are_followed() -> None:
    """Each row goes on from its parent as it was before the request."""
    start = ((Extend(0, (*PROMPT, 4), None), Extend(1, (*PROMPT, 5, 6), None)), ())
    swap = ((Extend(0, (0,), 1), Extend(1, (0,), 0, 4)), ())
    model = Texts(first, first, first)
    answered(mirror(ask([start, swap], []), lambda own, _: own, prompt=PROMPT, instead=NEGATIVE), model)
    assert sorted(model.rows.values()) == sorted(
        [(*PROMPT, 5, 6, 0), (*PROMPT, 4, 0), (*NEGATIVE, 5, 6, 0), (*NEGATIVE, 4, 0)]
    )


def test_without_another_prompt_a_companion_holds_the_same_and_a_draft_has_none() -> None:
    asked = [((Extend(0, (1, 2), None), Extend(0, (5,), None, model=2)), ()), ((Extend(0, (3,), 0),), ())]
    model = Texts(first, first, first)
    answered(mirror(ask(asked, []), lambda own, _: own, model=1), model)
    assert model.rows == {(0, 0): (1, 2, 3), (1, 1): (1, 2, 3), (2, 0): (5,)}


def test_hidden_states_are_those_of_the_search_s_own_rows() -> None:
    def states() -> Flow:
        reply = yield Request((Extend(0, PROMPT, None), Extend(1, PROMPT, None)), hidden=True)
        assert reply.hidden is not None
        assert [state.tolist() for state in reply.hidden] == [[[1.0]], [[2.0]]]
        return ()

    flow = mirror(states(), lambda own, _: own, prompt=PROMPT, instead=NEGATIVE)
    extends = next(flow).extend
    assert [len(extend.tokens) for extend in extends] == [3, 3, 2, 2]
    logits = Texts(first).extend(extends)
    with pytest.raises(StopIteration):
        flow.send(Reply(logits, tuple(np.full((1, 1), i + 1, np.float32) for i in range(4))))


def test_mirrors_of_mirrors_keep_their_rows_apart_and_release_them_all() -> None:
    model = Texts(first, first, first)
    inner = mirror(ask([((Extend(0, PROMPT, None),), ()), ((), ((0, 0),))], []), lambda own, _: own, model=1)
    answered(mirror(inner, lambda own, _: own, prompt=PROMPT, instead=NEGATIVE), model)
    assert model.rows == {}


def test_a_search_of_another_text_cannot_be_mirrored_with_a_prompt_of_its_own() -> None:
    flow = mirror(ask([((Extend(0, (1, 9, 3), None),), ())], []), lambda own, _: own, prompt=PROMPT, instead=NEGATIVE)
    with pytest.raises(GenerationError, match="it cannot be mirrored"):
        next(flow)
