"""tests: keys and values on a device with memory of its own, in which graphs compute them, and in ordinary memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fixed
import parity
from device import Apart
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.runtime.window import Window
from toy import CONTEXT, NAN, toy

TOKENS = np.random.default_rng(1).integers(0, NAN, 60).tolist()
OTHERS = np.random.default_rng(2).integers(0, NAN, 60).tolist()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Model:
    model = toy(tmp_path_factory.mktemp("toy"))
    model.memory = Apart()
    return model


def expected(model: Model, tokens: list[int]) -> NDArray[np.float32]:
    return Session(model, capacity=CONTEXT).prefill(tokens).copy()


def assert_close(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    """Float32 sums in another order; scores here reach 100."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3)


def test_tokens_one_after_the_other_copy_nothing(here: Model, there: Model) -> None:
    session = Session(there, capacity=60)
    session.prefill(TOKENS[:20])
    mirror = session.pool._mirror
    assert mirror
    before = mirror.copied
    for token in TOKENS[20:]:
        scores = session.decode(token)
    session.rewind(50)
    assert_close(scores, expected(here, TOKENS))
    assert_close(session.prefill(TOKENS[50:]), expected(here, TOKENS))
    assert mirror.copied == before == session.pool.bytes  # zeros, once


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_is_done_with_sessions_both_sides_hold_the_same(
    here: Model, there: Model, data: st.DataObject
) -> None:
    """Appends, forks, copies, and what was exported restored, in a pool that grows."""
    sessions = [Session(there, capacity=4)]
    for _ in range(data.draw(st.integers(2, 9))):
        session = data.draw(st.sampled_from(sessions))
        match data.draw(st.sampled_from(["append", "append", "rewind", "fork", "follow", "restore"])):
            case "rewind":
                session.rewind(data.draw(st.integers(0, session.length)))
            case "fork" if len(sessions) < 4:
                sessions.append(session.fork(data.draw(st.integers(0, session.length)), pool=session.pool))
            case "follow":
                session.follow(data.draw(st.sampled_from(sessions)))
            case "restore" if session.length:
                tokens, arrays = session.tokens.tolist(), session.export(0, session.length)
                session.rewind(0)
                session.restore(tokens, arrays)
            case _:
                new = data.draw(st.sampled_from([TOKENS, OTHERS]))[: data.draw(st.integers(1, 20))]
                held = [*session.tokens.tolist(), *new]
                if len(held) < CONTEXT:
                    assert_close(session.prefill(new), expected(here, held))
    for session in sessions:
        if session.length:
            last = session.tokens[-1:].tolist()
            held = session.tokens.tolist()
            session.rewind(session.length - 1)
            assert_close(session.prefill(last), expected(here, held))


def test_a_window_moves_what_is_on_the_device(tmp_path: Path) -> None:
    models = [toy(tmp_path, context=40) for _ in range(2)]
    models[1].memory = Apart()
    sessions = [Session(model, capacity=9, window=Window(sinks=4)) for model in models]
    for start in range(0, 60, 12):
        wanted, found = (session.prefill(TOKENS[start : start + 12]).copy() for session in sessions)
        assert_close(found, wanted)
    assert sessions[1].forgotten == sessions[0].forgotten > 0


def test_graphs_that_append_are_given_everything_anew(home: Path, tmp_path: Path) -> None:
    canonical = parity.export("gemma2", home)
    appended = fixed.model("fixed", canonical, tmp_path, context=64, width=16)
    appended.memory = Apart()
    tokens = [token % 100 + 3 for token in TOKENS]
    wanted = Session(fixed.model("ort", canonical, tmp_path, context=64), capacity=64)
    found = Session(appended, capacity=64)
    assert_close(found.prefill(tokens[:40]), wanted.prefill(tokens[:40]))
    assert_close(found.decode(tokens[40]), wanted.decode(tokens[40]))
