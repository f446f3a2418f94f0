"""tests: endless generation: what stays in a window is scored as if it were all there is, wherever it was before."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import parity
from canonical import calibrated
from canonical import tokens as random_tokens
from cases import CASES
from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.facts import Rotary
from edgewise.graph import get_facts
from edgewise.rotary import tables
from edgewise.runtime.model import Model
from edgewise.runtime.rows import Rows
from edgewise.runtime.session import Session
from edgewise.runtime.window import Window, turned
from edgewise.search.protocol import Extend
from edgewise.writer import write_model
from edgewise_plugins.cache import QuantizeCache
from edgewise_targets.ort.lower import LowerOrt
from toy import DIM, DYNAMIC, HEADS, KV_HEADS, LAYERS, NAN, ROTARY, toy

Floats = NDArray[np.float32]

TOKENS = np.random.default_rng(3).integers(0, NAN, 400).tolist()
SMALL = 40  # context

YARN = Rotary(
    DIM, 1e4, type="yarn", original_context=64, parameters={"factor": 4.0, "attention_factor": 1.14, "beta_fast": 32.0}
)
LLAMA3 = Rotary(
    DIM,
    1e4,
    type="llama3",
    original_context=64,
    parameters={"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
)
LINEAR = Rotary(DIM, 1e4, type="linear", parameters={"factor": 4.0})
ROTARIES: dict[str, Rotary] = {rotary.type: rotary for rotary in (ROTARY, LINEAR, YARN, LLAMA3, DYNAMIC)}


class Reference:
    """The toy in numpy, after the paper: keys are kept as they are, and rotated by their place in the cache."""

    def __init__(self, path: Path, rotary: Rotary, context: int) -> None:
        graph = onnx.load(path).graph
        self.weights = {each.name: numpy_helper.to_array(each).astype(np.float64) for each in graph.initializer}
        self.cos, self.sin = tables(rotary, context)
        self.keys: list[list[NDArray[np.float64]]] = [[] for _ in range(LAYERS)]
        self.values: list[list[NDArray[np.float64]]] = [[] for _ in range(LAYERS)]

    def forget(self, start: int, stop: int) -> None:
        for cache in (*self.keys, *self.values):
            del cache[start:stop]

    def __call__(self, token: int) -> NDArray[np.float64]:
        hidden = self.weights["embedding"][token]
        for layer in range(LAYERS):
            packed = _normed(hidden) @ self.weights[f"qkv.{layer}"]
            query, key, value = np.split(packed.reshape(-1, DIM), [HEADS, HEADS + KV_HEADS])
            self.keys[layer].append(key)
            self.values[layer].append(value)
            hidden = hidden + self._attend(layer, query) @ self.weights[f"o.{layer}"]
        scores: NDArray[np.float64] = _normed(hidden) @ self.weights["head"]
        return scores

    def _attend(self, layer: int, query: NDArray[np.float64]) -> NDArray[np.float64]:
        keys, values = (np.stack(cache) for cache in (self.keys[layer], self.values[layer]))
        length = len(keys)
        keys = self._rotated(keys, np.arange(length))
        query = self._rotated(query[None], np.array([length - 1]))[0]
        heads = []
        for head in range(HEADS):
            group = head // (HEADS // KV_HEADS)
            weights = np.exp(keys[:, group] @ query[head] * DIM**-0.5)
            heads.append(weights @ values[:, group] / weights.sum())
        return np.concatenate(heads)

    def _rotated(self, vectors: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
        cos, sin = self.cos[places][:, None], self.sin[places][:, None]
        a, b = vectors[..., : DIM // 2], vectors[..., DIM // 2 :]
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def _normed(hidden: NDArray[np.float64]) -> NDArray[np.float64]:
    normed: NDArray[np.float64] = hidden / np.sqrt(np.square(hidden).mean() + 1e-5)
    return normed


@pytest.mark.parametrize("kind", ROTARIES)
def test_scores_are_those_of_keys_that_were_never_rotated_elsewhere(kind: str, tmp_path: Path) -> None:
    model = toy(tmp_path, rotary=ROTARIES[kind], context=SMALL)
    reference = Reference(next(tmp_path.glob("*.onnx")), ROTARIES[kind], SMALL)
    session = Session(model, capacity=8, window=Window(sinks=3, drop=7))
    for token in TOKENS[:200]:
        if session.length == SMALL:
            reference.forget(3, 10)
        expected = reference(token)
        np.testing.assert_allclose(session.decode(token)[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert session.length + session.forgotten == 200
    assert session.tokens.tolist() == TOKENS[:3] + TOKENS[session.forgotten + 3 : 200]


# Windows and biases, two rotary embeddings, norms of heads, part of a head, a table that follows the context, none.
NAMES = ["qwen2", "gemma3", "qwen3", "phi3", "phi3 longrope", "smollm3", "olmo2"]


def lowered(name: str, model: Any, folder: Path, context: int) -> Model:
    facts = get_facts(model)
    write_model(LowerOrt()(model).model, folder / "lowered.onnx")
    return Model(folder / "lowered.onnx", facts, context=context, threads=1)


def past_its_context(model: Model) -> tuple[Session, Session]:
    """A session that forgot, twice, and one that appends what is left of it to nothing."""
    window = Window(sinks=2, drop=9)
    moved, fresh = Session(model, capacity=8, window=window), Session(model, capacity=model.context)
    tokens = np.random.default_rng(7).integers(3, model.facts.vocab_size, model.context + 15)
    for token in tokens.tolist():
        moved.decode(token)
    assert moved.forgotten == 18
    fresh.prefill(moved.tokens.tolist())
    return moved, fresh


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_the_first_layer_are_those_that_the_model_computes_there(name: str, home: Path, tmp_path: Path) -> None:
    """Later layers have seen what is forgotten; the first has seen nothing but its own token."""
    moved, fresh = past_its_context(lowered(name, parity.export(name, home), tmp_path, 50))
    for ours, theirs in zip(moved.export(0, moved.length)[:2], fresh.export(0, fresh.length)[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("name", ["qwen2", "phi3"])
def test_keys_in_int8_are_off_by_a_step_for_each_time_that_they_moved(name: str, home: Path, tmp_path: Path) -> None:
    model = QuantizeCache()(calibrated(parity.export(name, home), random_tokens(100, CASES[name].length))).model
    moved, fresh = past_its_context(lowered(name, model, tmp_path, 50))
    (keys, values), (expected, same) = (each.export(0, moved.length)[:2] for each in (moved, fresh))
    off = np.abs(keys.astype(int) - expected.astype(int))
    assert keys.dtype == np.int8
    assert 0 < off.mean() < 0.6
    assert off.max() <= 3  # rounded once when it was computed, and twice on its way
    assert np.abs(values.astype(int) - same.astype(int)).max() <= 1


@pytest.mark.parametrize("interleaved", [False, True])
def test_only_the_pairs_that_the_embedding_turns_are_turned(interleaved: bool) -> None:
    rotary = Rotary(dim=4, theta=100.0, interleaved=interleaved)
    keys = np.random.default_rng(1).standard_normal((2, 1, 6)).astype(np.float32)
    angles = np.array([[0.3, 1.1]], np.float32)
    found = turned(keys, rotary, (np.cos(angles), np.sin(angles)))
    pairs = [(0, 1), (2, 3)] if interleaved else [(0, 2), (1, 3)]
    for (a, b), angle in zip(pairs, angles[0], strict=True):
        number = (keys[..., a] + 1j * keys[..., b]) * np.exp(1j * angle)
        np.testing.assert_allclose(found[..., a] + 1j * found[..., b], number, rtol=1e-5)
    np.testing.assert_array_equal(found[..., 4:], keys[..., 4:])


# Sessions and rows.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return toy(tmp_path_factory.mktemp("toy"), context=SMALL)


def session(model: Model, window: Window, count: int) -> Session:
    made = Session(model, capacity=8, window=window)
    for token in TOKENS[:count]:
        made.decode(token)
    return made


def test_tokens_are_forgotten_only_when_the_context_is_full_and_so_many_at_a_time(model: Model) -> None:
    lengths = [session(model, Window(sinks=4, drop=10), count).length for count in (39, 40, 41, 50, 51)]
    assert lengths == [39, 40, 31, 40, 31]
    assert session(model, Window(), 41).forgotten == SMALL // 8


def test_as_many_are_forgotten_as_are_appended_at_once(model: Model) -> None:
    made = session(model, Window(sinks=4, drop=3), 38)
    made.prefill(TOKENS[:20])
    assert (made.length, made.forgotten) == (40, 18)
    with pytest.raises(ContextOverflow, match="37 tokens do not fit in the context of 40 beside the 4 that stay"):
        made.prefill(TOKENS[:37])
    made.prefill(TOKENS[:36])
    assert made.tokens.tolist() == TOKENS[:4] + TOKENS[:36]


def test_without_sinks_the_latest_stay(model: Model) -> None:
    made = session(model, Window(sinks=0, drop=10), 45)
    assert made.tokens.tolist() == TOKENS[10:45]


def test_a_fork_and_its_origin_forget_on_their_own(model: Model) -> None:
    origin = session(model, Window(sinks=4, drop=10), 45)
    fork = origin.fork()
    assert (fork.forgotten, fork.length) == (origin.forgotten, origin.length)
    for token in TOKENS[45:60]:
        fork.decode(token)
    assert (fork.forgotten, origin.forgotten) == (20, 10)
    expected = session(model, Window(sinks=4, drop=10), 45)
    np.testing.assert_array_equal(origin.decode(TOKENS[45]), expected.decode(TOKENS[45]))
    assert origin.tokens.tolist() == TOKENS[:4] + TOKENS[14:46]


def test_rows_count_what_is_forgotten_as_a_search_does(model: Model) -> None:
    rows, other = (Rows((model,), capacity=99, window=Window(sinks=4, drop=10)) for _ in range(2))
    for number, token in enumerate(TOKENS[:60]):
        rows.extend([Extend(0, (token,), 0 if number else None)])
        other.extend([Extend(0, (token,), 0 if number else None)])
    (back,), _ = rows.extend([Extend(0, (7, 8), 0, length=58)])
    (forked,), _ = other.extend([Extend(1, (7, 8), 0, length=58)])
    np.testing.assert_array_equal(back, forked)
    with pytest.raises(GenerationError, match="cannot go back to 20 tokens: the window has forgotten 20"):
        rows.extend([Extend(0, (7,), 0, length=20)])
    rows.close()
    assert rows.forgotten == 20


def test_a_row_that_begins_again_has_forgotten_nothing(model: Model) -> None:
    made = session(model, Window(sinks=4, drop=10), 60)
    made.rewind(0)
    assert (made.forgotten, made.length) == (0, 0)
    assert made.prefill(TOKENS[:9]).shape == (1, model.facts.vocab_size)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(sinks=-1), "sinks is -1; it must be 0 or above"),
        (lambda: Window(drop=0), "drop is 0; it must be 1 or above"),
        (lambda: Window(sinks=4.5), "sinks: expected a whole number, got 4.5"),  # type: ignore[arg-type]
        (lambda: Window.of("windw"), "no overflow policy is named 'windw'; did you mean 'window'?"),
        (lambda: Window.of({"name": "window", "sink": 3}), "did you mean 'sinks'?"),
        (lambda: Window(sinks=30, drop=10).cut((1,), 40), "needs a context of more than 40; it is 40"),
    ],
)
def test_a_window_that_cannot_be_is_one_line(make: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()
    assert message in str(caught.value)
