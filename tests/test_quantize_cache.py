"""tests: keys and values in int8: what the graph rounds is what the cache keeps, and little is lost by it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import parity
import tiny
from canonical import PYCODER, calibrated, tokens
from cases import CASES
from edgewise.bundle.manifest import Provider
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import GraphError, LoweringError, RecipeError
from edgewise.facts import Rotary
from edgewise.graph import Roles, get_facts
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.rotary import tables
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.tensors import streamed
from edgewise.writer import write_model
from edgewise_plugins.cache import STEPS, QuantizeCache, key_sizes, scales
from edgewise_plugins.rotate import Rotate
from edgewise_targets.ort.lower import LowerOrt

Floats = NDArray[np.float32]

# Windows and biases, capped scores, two rotary embeddings, norms of heads, partial rotation that follows the context,
# layers without rotation, one key head.
NAMES = ["qwen2", "gemma2", "gemma3", "qwen3", "phi3 longrope", "smollm3", "olmo2", "phi3"]

RECIPE = Recipe((RecipeStep("quantize-cache"),))
TEXT = CalibrationText(PYCODER / "heldout.txt", tokens=2048, length=256)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo model with float weights, so that all that it loses is lost in its cache."""
    heldout = CalibrationText(PYCODER / "heldout.txt", tokens=1024, length=256, seed=5)
    output = tmp_path_factory.mktemp("cache") / "pycoder.edge"
    return build(PYCODER, output=output, recipe=RECIPE, calibration=TEXT, quality=heldout)


def rounded(name: str, home: Path, sequences: np.ndarray | None = None) -> ir.Model:
    """The canonical graph of a case, its cache calibrated on these tokens."""
    sequences = tokens(100, CASES[name].length) if sequences is None else sequences
    return QuantizeCache()(calibrated(parity.export(name, home), sequences)).model


def lowered(name: str, model: ir.Model, folder: Path) -> Model:
    write_model(LowerOrt()(model).model, folder / "lowered.onnx")
    return Model(folder / "lowered.onnx", get_facts(model), context=CASES[name].context, threads=1)


def scale(model: ir.Model, name: str) -> Floats:
    return streamed(model.graph.initializers[name].const_value).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_a_session_scores_what_the_graph_that_rounds_scores(name: str, home: Path, tmp_path: Path) -> None:
    row = parity.oracle(name, home).tokens[0]
    model = rounded(name, home)
    write_model(model, tmp_path / "canonical.onnx")
    expected = parity.Canonical(parity.load(tmp_path / "canonical.onnx"), get_facts(model), CASES[name].context)([row])
    session = Session(lowered(name, model, tmp_path), capacity=len(row))
    found = {
        "whole": session.prefill(row, scores=len(row)).copy(),
        "in chunks": Session(session.model, capacity=9, chunk=7).prefill(row, scores=len(row)).copy(),
    }
    session.rewind(0)
    found["token by token"] = np.concatenate([session.decode(int(token)).copy() for token in row])
    for scores in found.values():
        error = np.abs(scores - expected[0]) / np.abs(expected[0]).max()
        # Sums in another order: where that takes a number over the middle of two steps, it is off by one of 127.
        assert np.median(error) < 1e-4
        assert error.max() < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_little_is_lost(name: str, home: Path, tmp_path: Path) -> None:
    oracle = parity.oracle(name, home)
    session = Session(lowered(name, rounded(name, home), tmp_path), capacity=1)
    found = session.prefill(oracle.tokens[0], scores=len(oracle.tokens[0]))
    error = np.square(found - oracle.logits[0]).mean() / np.square(oracle.logits[0]).mean()
    # A number is off by 1/254 of the largest in its channel; these models look at few keys, so that shows.
    assert 0 < error < 0.05**2


@pytest.mark.parametrize("name", ["llama", "smollm3"])
def test_the_cache_holds_what_numpy_rounds(name: str, home: Path, tmp_path: Path) -> None:
    row = parity.oracle(name, home).tokens[0]
    model, facts = parity.export(name, home), get_facts(parity.export(name, home))
    write_model(model, tmp_path / "canonical.onnx")
    floats = parity.Canonical(parity.load(tmp_path / "canonical.onnx"), facts, CASES[name].context)
    floats([row])
    model = rounded(name, home)
    session = Session(lowered(name, model, tmp_path), capacity=len(row))
    session.prefill(row)
    a = facts.attention[0]
    for part, buffer in zip(("key", "value"), session.pool.buffers, strict=False):
        steps = scale(model, f"cache.0.{part}_scale").reshape(a.kv_heads, 1, a.head_dim)
        exact = floats.cache[f"past_key_values.0.{part}"][0] / steps
        off = buffer[0] - np.clip(np.rint(exact), -128, 127)
        assert buffer.dtype == np.int8
        assert np.abs(off).max() <= 1
        assert np.abs(off[np.abs(exact - np.rint(exact)) < 0.49]).max() == 0


def test_keys_at_later_positions_fit_though_the_text_was_short(home: Path, tmp_path: Path) -> None:
    every = np.arange(tiny.VOCABULARY).reshape(-1, 8)  # every token, at 8 positions: in layer 0 there is no more to see
    steps = scale(rounded("llama", home, every), "cache.0.key_scale")
    model = parity.export("llama", home)
    facts = get_facts(model)
    write_model(model, tmp_path / "canonical.onnx")
    session = parity.Canonical(parity.load(tmp_path / "canonical.onnx"), facts, 256)
    session(list(np.random.default_rng(0).permuted(np.tile(np.arange(tiny.VOCABULARY), (8, 1)), axis=1)))
    keys = session.cache["past_key_values.0.key"]  # [rows, kv_heads, positions, head_dim]
    largest = np.abs(keys).max(axis=(0, 2)).reshape(-1)
    assert (largest < steps * STEPS * 1.00001).all()
    early = np.abs(keys[:, :, :8]).max(axis=(0, 2)).reshape(-1)
    assert (largest > 1.2 * early).any()  # the largest of each channel would not have been enough


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_pair_has_the_size_of_its_radius_and_the_rest_its_own(interleaved: bool) -> None:
    rotary = Rotary(dim=8, theta=1e4, interleaved=interleaved)
    keys = np.random.default_rng(1).standard_normal((5, 2, 12)).astype(np.float32)
    cos, sin = (table[:, None] for table in tables(rotary, 3000))
    sizes = key_sizes(keys, rotary)
    a, b = (keys[..., :8:2], keys[..., 1:8:2]) if interleaved else (keys[..., :4], keys[..., 4:8])
    for x, y in zip(a, b, strict=True):
        turned = [np.abs(x * cos - y * sin).max(axis=0), np.abs(x * sin + y * cos).max(axis=0)]
        place = (slice(0, 8, 2), slice(1, 8, 2)) if interleaved else (slice(0, 4), slice(4, 8))
        for part, where in zip(turned, place, strict=True):
            assert (part <= sizes[:, where] * np.float32(1.00001)).all()
    np.testing.assert_array_equal(sizes[:, 8:], np.abs(keys[..., 8:]).max(axis=0))
    np.testing.assert_array_equal(key_sizes(keys, None), np.abs(keys).max(axis=0))


def test_a_channel_of_zeros_has_a_scale() -> None:
    np.testing.assert_allclose(scales(np.array([0, 254, 127], np.float32)), [2, 2, 1])
    assert (scales(np.zeros(4, np.float32)) > 0).all()


def test_forks_and_rewinds_are_as_ever(home: Path, tmp_path: Path) -> None:
    row = parity.oracle("llama", home).tokens[0]
    session = Session(lowered("llama", rounded("llama", home), tmp_path), capacity=8)
    expected = session.prefill(row, scores=4).copy()
    fork = session.fork(len(row) - 4)
    session.rewind(3)
    session.prefill(row[::-1])
    np.testing.assert_allclose(fork.prefill(row[-4:], scores=4), expected, rtol=0, atol=0.02 * np.abs(expected).max())
    session.follow(fork, 5)
    np.testing.assert_array_equal(session.export(0, 5), fork.export(0, 5))


def test_a_bundle_keeps_int8_and_loses_little(bundle: Bundle) -> None:
    manifest, facts = bundle.manifest, bundle.manifest.language_model
    floats = replace(facts, attention=tuple(replace(a, cache="float32") for a in facts.attention))
    assert manifest.cache.dtype == "int8"
    assert 4 * manifest.card["cache_bytes"] == floats.cache_bytes(manifest.context)
    session = Session(Model.load(bundle.path, manifest), capacity=100)
    assert session.bytes == facts.cache_bytes(100)
    assert manifest.card["quality"]["mean_kld"] < 0.002
    assert "transformers.js" not in (bundle.path / "README.md").read_text("utf-8")


def test_a_graph_of_prompts_has_the_same_cache(tmp_path: Path) -> None:
    recipe = Recipe((*RECIPE.steps, RecipeStep("quantize")))
    made = build(PYCODER, output=tmp_path / "two.edge", recipe=recipe, calibration=TEXT, prefill="int8")
    model = Model.load(made.path, made.manifest)
    assert model.prompts
    assert {tensor.dtype for tensor in model.cache} == {np.dtype(np.int8)}


def test_a_plan_counts_the_cache_without_running_the_model() -> None:
    plans = [plan_build(PYCODER, recipe=r, calibration=t) for r, t in ((Recipe(), None), (RECIPE, TEXT))]
    assert plans[0].cache == 4 * plans[1].cache
    assert plans[0].run_memory > plans[1].run_memory


def test_without_a_text_it_says_what_it_needs(home: Path) -> None:
    with pytest.raises(RecipeError, match="pass 'quantize-cache' needs a calibration text: --calibration-text FILE"):
        QuantizeCache()(parity.export("llama", home))


def test_once_is_enough(home: Path) -> None:
    model = rounded("llama", home)
    with pytest.raises(GraphError, match="layer 0: keys and values are kept in int8 already"):
        QuantizeCache()(model)


def test_a_rotation_comes_before(home: Path) -> None:
    with pytest.raises(GraphError, match="'quantize-cache' comes after 'rotate'"):
        Rotate()(rounded("llama", home))


def test_other_processors_are_refused_by_name(home: Path) -> None:
    model = rounded("llama", home)
    target = replace(registry().get_target("cpu-x64"), name="tab", providers=(Provider("WebGpuExecutionProvider"),))
    model.meta["edgewise"] = BuildContext(target=target)
    with pytest.raises(LoweringError, match="target 'tab' runs on WebGpuExecutionProvider"):
        LowerOrt()(model)


def test_a_graph_that_does_not_round_as_its_facts_say_is_refused(home: Path) -> None:
    model = rounded("llama", home)
    node = Roles.of(model).one("attention", 1)
    before = Roles.of(model).all("attention.v.cache", 1)[0].inputs[0]
    node.replace_input_with(2, before)
    with pytest.raises(GraphError, match="layer 1: the facts say cache = 'int8', and the graph does not round 'v'"):
        LowerOrt()(model)
