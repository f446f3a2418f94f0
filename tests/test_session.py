"""tests: a session: however tokens get into its cache, the scores are those of one pass over all of them."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewise.bundle.manifest import Provider
from edgewise.errors import BundleError, ContextOverflow, GenerationError, OptionError, TargetError
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from toy import CONTEXT, DIM, DYNAMIC, KV_HEADS, LAYERS, NAN, VOCABULARY, facts, toy

TOKENS = np.random.default_rng(1).integers(0, NAN, 60).tolist()
OTHERS = np.random.default_rng(2).integers(0, NAN, 60).tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def whole(model: Model) -> NDArray[np.float32]:
    return one_pass(model, TOKENS)


def one_pass(model: Model, tokens: list[int]) -> NDArray[np.float32]:
    """The scores of every position, by ONNX Runtime itself: no binding, an empty cache, all tokens at once."""
    feeds = {"input_ids": np.array([tokens]), "attention_mask": np.ones((1, len(tokens)), np.int64)}
    empty = np.zeros((1, KV_HEADS, 0, DIM), np.float32)
    feeds |= {f"past_key_values.{i}.{kind}": empty for i in range(LAYERS) for kind in ("key", "value")}
    scores: NDArray[np.float32] = model.graph.run(["logits"], {**feeds, **model.rotary})[0][0]
    return scores


def assert_close(scores: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Float32 sums in another order; scores here reach 100."""
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * max(1, float(np.abs(expected).max())))


def test_a_prefill_scores_what_one_pass_scores(model: Model, whole: NDArray[np.float32]) -> None:
    assert_close(Session(model, capacity=60).prefill(TOKENS, scores=60), whole)


def test_single_decodes_score_what_one_pass_scores(model: Model, whole: NDArray[np.float32]) -> None:
    session = Session(model, capacity=60)
    assert_close(np.concatenate([session.decode(token).copy() for token in TOKENS]), whole)


@given(chunk=st.integers(1, 70), scores=st.integers(1, 60), first=st.integers(0, 59))
@settings(max_examples=40, deadline=None)
def test_chunks_of_any_length_score_the_same(
    model: Model, whole: NDArray[np.float32], chunk: int, scores: int, first: int
) -> None:
    session = Session(model, capacity=60, chunk=chunk)
    if first:
        assert_close(session.prefill(TOKENS[:first]), whole[first - 1 : first])
    scores = min(scores, 60 - first)
    assert_close(session.prefill(TOKENS[first:], scores=scores), whole[60 - scores :])
    assert session.length == 60


@pytest.mark.parametrize("scores", [1, 7, 20])
def test_where_several_tokens_would_not_see_the_past_they_are_computed_singly(
    tmp_path: Path, whole: NDArray[np.float32], scores: int
) -> None:
    singly = toy(tmp_path)
    singly.singly = True
    session, widths = Session(singly, capacity=60, chunk=30), []
    bound = session.pool.bound(0, 1)
    run = bound.run
    bound.run = lambda *given: (widths.append(given[1].shape[1]), run(*given))[1]  # type: ignore[method-assign, func-returns-value]
    assert_close(session.prefill(TOKENS[:50], scores=scores), whole[50 - scores : 50])
    assert widths == [30, *[1] * 20]
    assert_close(session.decode(TOKENS[50]), whole[50:51])


def test_after_a_rewind_the_cache_is_that_of_the_tokens_kept(model: Model) -> None:
    session = Session(model, capacity=60)
    session.prefill(TOKENS)
    session.rewind(20)
    session.decode(OTHERS[0])
    session.prefill(OTHERS[1:20])
    assert session.length == 40
    assert_close(session.decode(OTHERS[20]), one_pass(model, TOKENS[:20] + OTHERS[:21])[-1:])


def test_no_threads_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="threads is 0; it must be 1 or more"):
        toy(tmp_path, threads=0)


@pytest.mark.parametrize("kept", [None, 0, 1, 17, 30])
def test_a_fork_and_its_origin_go_their_own_ways(model: Model, kept: int | None) -> None:
    origin = Session(model, capacity=60)
    origin.prefill(TOKENS[:30])
    fork = origin.fork(kept)
    of_fork = fork.prefill(OTHERS[:9]).copy()
    of_origin = origin.prefill(TOKENS[30:45])
    assert_close(of_fork, one_pass(model, TOKENS[: fork.length - 9] + OTHERS[:9])[-1:])
    assert_close(of_origin, one_pass(model, TOKENS[:45])[-1:])


def test_buffers_are_as_long_as_what_was_asked_for_and_grow_at_least_double(model: Model) -> None:
    session = Session(model, capacity=20)
    assert session.bytes == facts().cache_bytes(20)
    session.prefill(TOKENS[:20])
    assert session.capacity == 20
    session.decode(TOKENS[20])
    assert session.capacity == 40
    assert_close(session.prefill(TOKENS[21:], scores=39), one_pass(model, TOKENS)[21:])
    assert session.capacity == 80


def test_buffers_never_grow_beyond_the_context(model: Model) -> None:
    session = Session(model, capacity=CONTEXT - 1)
    session.prefill([5] * CONTEXT)
    assert session.capacity == CONTEXT
    with pytest.raises(ContextOverflow, match=f"{CONTEXT + 1} tokens do not fit in the context of {CONTEXT}"):
        session.decode(5)
    assert session.length == CONTEXT


@pytest.mark.parametrize("capacity", [0, CONTEXT + 1])
def test_a_capacity_that_no_session_has_is_refused(model: Model, capacity: int) -> None:
    with pytest.raises(ContextOverflow, match=f"{capacity} tokens"):
        Session(model, capacity=capacity)


def test_scores_are_a_view_of_one_buffer(model: Model) -> None:
    session = Session(model, capacity=4)
    assert np.shares_memory(session.decode(1), session.decode(2))


@pytest.mark.parametrize("bad", [NAN, -1, VOCABULARY])
def test_a_failure_leaves_the_session_as_it_was(model: Model, whole: NDArray[np.float32], bad: int) -> None:
    session = Session(model, capacity=60, chunk=8)
    session.prefill(TOKENS[:20])
    with pytest.raises(GenerationError):
        session.prefill([*TOKENS[20:40], bad])
    with pytest.raises(GenerationError):
        session.decode(bad)
    assert session.length == 20
    assert_close(session.prefill(TOKENS[20:], scores=40), whole[20:])


def test_an_interrupt_leaves_the_session_as_it_was(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(model, capacity=60, chunk=8)
    session.prefill(TOKENS[:10])
    run, left = session.pool.run, iter(range(2))

    def interrupted(*given):  # type: ignore[no-untyped-def]
        if next(left, None) is None:
            raise KeyboardInterrupt
        run(*given)

    monkeypatch.setattr(session.pool, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.prefill(TOKENS[10:50])
    monkeypatch.undo()
    assert session.tokens.tolist() == TOKENS[:10]
    assert_close(session.prefill(TOKENS[10:]), one_pass(model, TOKENS)[-1:])


def test_scores_that_are_not_finite_are_an_error(model: Model) -> None:
    with pytest.raises(GenerationError, match="after 3 tokens are not finite"):
        Session(model, capacity=9).prefill([1, 2, NAN])


@pytest.mark.parametrize("length", [-1, 4])
def test_a_rewind_to_what_was_never_there_is_refused(model: Model, length: int) -> None:
    session = Session(model, capacity=9)
    session.prefill([1, 2, 3])
    with pytest.raises(GenerationError, match=f"cannot rewind to {length} tokens: the session holds 3"):
        session.rewind(length)


@pytest.mark.parametrize("kept", [-1, 4])
def test_a_copy_of_more_than_there_is_is_refused(model: Model, kept: int) -> None:
    origin, other = (Session(model, capacity=9) for _ in range(2))
    origin.prefill([1, 2, 3])
    other.prefill([4, 5])
    with pytest.raises(GenerationError, match=f"cannot copy {kept} tokens: the session holds 3"):
        other.follow(origin, kept)
    assert other.length == 2


def test_a_session_that_follows_another_grows_for_it(model: Model) -> None:
    origin, other = Session(model, capacity=60), Session(model, capacity=3)
    origin.prefill(TOKENS[:30])
    other.prefill([4, 5])
    other.follow(origin)
    assert_close(other.prefill(TOKENS[30:]), one_pass(model, TOKENS)[-1:])


def test_keys_and_values_that_were_exported_stand_for_their_tokens_in_another_session(model: Model) -> None:
    origin, other = Session(model, capacity=60), Session(model, capacity=3)
    origin.prefill(TOKENS[:40])
    for start, stop in ((0, 16), (16, 29)):
        other.restore(TOKENS[start:stop], origin.export(start, stop))
    assert other.tokens.tolist() == TOKENS[:29]
    assert_close(other.prefill(TOKENS[29:]), one_pass(model, TOKENS)[-1:])
    assert other.tokens.tolist() == TOKENS


def test_a_session_tells_the_tokens_that_it_holds(model: Model) -> None:
    session = Session(model, capacity=2)
    session.prefill(TOKENS[:20])
    session.rewind(10)
    session.decode(5)
    assert session.tokens.tolist() == [*TOKENS[:10], 5]
    assert session.fork(4).tokens.tolist() == TOKENS[:4]
    with pytest.raises(GenerationError):
        session.prefill([1, NAN])
    assert session.tokens.tolist() == [*TOKENS[:10], 5]


def test_keys_and_values_of_another_shape_are_refused(model: Model) -> None:
    session = Session(model, capacity=9)
    session.prefill([1, 2, 3])
    with pytest.raises(GenerationError, match=r"cannot export positions 1 to 4: the session holds 3"):
        session.export(1, 4)
    with pytest.raises(GenerationError, match=r"past_key_values\.0\.key of 1 tokens is float32 \(2, 1, 16\), got .*3"):
        session.restore([4], session.export(0, 3))
    assert session.length == 3


def test_no_tokens_and_more_scores_than_tokens_are_refused(model: Model) -> None:
    session = Session(model, capacity=9)
    with pytest.raises(GenerationError, match="no tokens"):
        session.prefill([])
    with pytest.raises(GenerationError, match="4 positions cannot be scored when 3 tokens"):
        session.prefill([1, 2, 3], scores=4)


def test_sessions_of_one_model_do_not_disturb_each_other_in_threads(model: Model) -> None:
    found: dict[int, NDArray[np.float32]] = {}

    def run(number: int) -> None:
        session = Session(model, capacity=60)
        found[number] = np.concatenate([session.decode((token + number) % NAN).copy() for token in TOKENS])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, scores in found.items():
        assert_close(scores, one_pass(model, [(token + number) % NAN for token in TOKENS]))
    assert len(found) == 4


def test_a_table_that_follows_the_context_is_that_of_the_session_s_context(tmp_path: Path) -> None:
    short, long = toy(tmp_path, rotary=DYNAMIC, context=32), toy(tmp_path, rotary=DYNAMIC, context=128)
    fixed = toy(tmp_path)  # 32 is the original context: there a dynamic table is the default one
    scores = {model: Session(model, capacity=32).prefill(TOKENS[:32]).copy() for model in (short, long, fixed)}
    assert_close(scores[short], scores[fixed])
    assert_close(scores[long], one_pass(long, TOKENS[:32])[-1:])
    assert np.abs(scores[long] - scores[fixed]).max() > 1


def test_a_context_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContextOverflow, match=f"a context of 257 tokens was asked for; the model has {CONTEXT}"):
        toy(tmp_path, context=CONTEXT + 1)


def test_a_provider_that_is_not_installed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"runs on TensorrtExecutionProvider.*CPUExecutionProvider"):
        toy(tmp_path, providers=(Provider("TensorrtExecutionProvider"),))


def test_a_file_that_is_no_graph_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"model\.onnx: .") as caught:
        Model(path, facts())
    assert "\n" not in str(caught.value)


def test_a_graph_of_another_shape_is_refused(tmp_path: Path) -> None:
    toy(tmp_path)
    path = next(tmp_path.glob("*.onnx"))
    deeper = replace(facts(), attention=facts().attention * 2)
    with pytest.raises(BundleError, match=r"input 'past_key_values\.2\.key' is missing"):
        Model(path, deeper)


def test_a_model_cannot_set_the_session_s_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    toy(tmp_path)
    assert "ORT_LOAD_CONFIG_FROM_MODEL" not in os.environ
