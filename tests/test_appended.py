"""tests: graphs that give keys and values of new tokens only score what graphs do that write them in place."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fixed
import parity
import tiny
from edgewise.errors import ContextOverflow, GenerationError
from edgewise.graph import get_facts
from edgewise.runtime.appended import MASKED, Bias
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session

CONTEXT, WIDTH = 96, 16
TOKENS = np.random.default_rng(5).integers(3, tiny.VOCABULARY, CONTEXT).tolist()
OTHERS = np.random.default_rng(6).integers(3, tiny.VOCABULARY, CONTEXT).tolist()

# Grouped queries; windows in every other layer; two rotary embeddings; tables that follow the context.
FAMILIES = ["llama", "gemma2", "gemma3", "llama dynamic"]

Floats = NDArray[np.float32]
Pair = tuple[Model, Model]


@pytest.fixture(scope="module", params=[f"{kind} {family}" for kind in ("free", "fixed") for family in FAMILIES])
def pair(request: pytest.FixtureRequest, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model whose graphs append, and the same one with a cache that is written in place."""
    kind, _, family = request.param.partition(" ")
    canonical, folder = parity.export(family, home), tmp_path_factory.mktemp("appended")
    appended = fixed.model(kind, canonical, folder, context=CONTEXT, width=WIDTH)
    return appended, fixed.model("ort", canonical, folder, context=CONTEXT)


@pytest.fixture(scope="module")
def fixed_model(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("fixed")
    return fixed.model("fixed", parity.export("llama", home), folder, context=CONTEXT, width=WIDTH)


def expected(model: Model, tokens: list[int], scores: int = 1) -> Floats:
    return Session(model, capacity=CONTEXT).prefill(tokens, scores=scores).copy()


def assert_close(found: Floats, wanted: Floats) -> None:
    """Float32 sums in another order."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 15, 16, 17, 18, 31, 32, 33, 34, 49, CONTEXT])
def test_prompts_of_any_length_score_the_same(pair: Pair, length: int) -> None:
    appended, in_place = pair
    assert_close(Session(appended, capacity=8).prefill(TOKENS[:length]), expected(in_place, TOKENS[:length]))


@pytest.mark.parametrize(("first", "scores"), [(0, CONTEXT), (40, 9), (0, 17), (95, 1)])
def test_as_many_positions_are_scored_as_are_asked_for(pair: Pair, first: int, scores: int) -> None:
    appended, in_place = pair
    session = Session(appended, capacity=8)
    if first:
        session.prefill(TOKENS[:first])
    assert_close(session.prefill(TOKENS[first:], scores=scores), expected(in_place, TOKENS, scores))


def test_tokens_that_are_not_scored_are_held(pair: Pair) -> None:
    appended, in_place = pair
    session = Session(appended, capacity=8)
    assert session.prefill(TOKENS[:50], scores=0).shape == (0, tiny.VOCABULARY)
    assert session.prefill(TOKENS[50:51], scores=0).shape == (0, tiny.VOCABULARY)
    assert_close(session.decode(TOKENS[51]), expected(in_place, TOKENS[:52]))


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_whatever_is_done_with_sessions_they_score_what_they_hold(pair: Pair, data: st.DataObject) -> None:
    """Appends in chunks of any length, rewinds, forks and copies, in one pool that grows."""
    appended, in_place = pair
    sessions = [Session(appended, capacity=4, chunk=data.draw(st.sampled_from([5, 16, 40])))]
    for _ in range(data.draw(st.integers(2, 7))):
        session = data.draw(st.sampled_from(sessions))
        match data.draw(st.sampled_from(["append", "append", "rewind", "fork", "follow"])):
            case "rewind":
                session.rewind(data.draw(st.integers(0, session.length)))
            case "fork" if len(sessions) < 4:
                sessions.append(session.fork(data.draw(st.integers(0, session.length)), pool=session.pool))
            case "follow":
                session.follow(data.draw(st.sampled_from(sessions)))
            case _:
                count = data.draw(st.integers(0, CONTEXT - session.length))
                if not count:
                    continue
                new = data.draw(st.sampled_from([TOKENS, OTHERS]))[:count]
                scores = data.draw(st.integers(1, min(count, 20)))
                held = [*session.tokens.tolist(), *new]
                assert_close(session.prefill(new, scores=scores), expected(in_place, held, scores))
                assert session.tokens.tolist() == held
    for session in sessions:
        if 0 < session.length < CONTEXT:
            held = [*session.tokens.tolist(), TOKENS[0]]
            assert_close(session.decode(TOKENS[0]), expected(in_place, held))


def test_buffers_of_free_lengths_grow_and_those_of_fixed_lengths_never_do(pair: Pair) -> None:
    appended, _ = pair
    session = Session(appended, capacity=4)
    assert session.capacity == (CONTEXT if appended.fixed else 4)
    session.prefill(TOKENS[:5])
    assert session.capacity == (CONTEXT if appended.fixed else 8)


def test_a_prompt_longer_than_the_compiled_length_is_refused(fixed_model: Model) -> None:
    session = Session(fixed_model, capacity=4)
    line = (
        rf"^97 tokens do not fit in the context of {CONTEXT}, which its graphs were compiled for; build it with more$"
    )
    with pytest.raises(ContextOverflow, match=line):
        session.prefill([*TOKENS, 3])
    assert session.length == 0


def test_a_context_longer_than_the_compiled_length_is_refused(home: Path, tmp_path: Path) -> None:
    fixed.model("fixed", parity.export("llama", home), tmp_path, context=CONTEXT, width=WIDTH)
    facts, path = get_facts(parity.export("llama", home)), tmp_path / f"fixed-{CONTEXT}.onnx"
    with pytest.raises(ContextOverflow, match=rf"compiled for {CONTEXT}: build it with --context 97$"):
        Model(path, facts, context=CONTEXT + 1)
    shorter = Model(path, facts, context=20)
    with pytest.raises(ContextOverflow, match="21 tokens do not fit in the context of 20"):
        Session(shorter, capacity=5).prefill(TOKENS[:21])
    assert_close(Session(shorter, capacity=5).prefill(TOKENS[:20]), expected(Model(path, facts), TOKENS[:20]))


def test_hidden_states_of_graphs_without_them_are_refused(fixed_model: Model) -> None:
    with pytest.raises(GenerationError, match=r"gives none: graphs of fixed lengths have none$"):
        Session(fixed_model, capacity=4).prefill(TOKENS[:4], hidden=True)


@given(
    window=st.one_of(st.none(), st.integers(1, 12)),
    width=st.integers(1, 9),
    lengths=st.lists(st.integers(0, 20), max_size=9),
)
def test_a_bias_shows_what_comes_before_whatever_it_showed_before(
    window: int | None, width: int, lengths: list[int]
) -> None:
    capacity = 20
    bias = Bias(window, width, capacity)
    for length in lengths:
        bias.show(length)
        queries = length + np.arange(width)[:, None]
        keys = np.concatenate([np.arange(capacity), length + np.arange(width)])
        held = np.concatenate([np.arange(capacity) < length, np.ones(width, bool)])
        seen = held & (keys <= queries) & (queries - keys < (window or 99))
        assert (bias.array[0, 0] == np.where(seen, 0, np.float32(MASKED))).all()
