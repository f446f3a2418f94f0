"""tests: activations: what int8 would spoil gets smaller blocks, or stays in floats; all else stays as it is."""

import logging
import tempfile
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.testing import assert_array_equal

import parity
import tiny
from canonical import calibrated, graph, logits, tokens
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import OptionError, RecipeError
from edgewise.graph import FLOAT, Linear, activations, get_facts, linears
from edgewise.integer import Int8Rows
from edgewise.passes import BuildContext, context_of
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.prefill import prefill_graph, remember
from edgewise.quality.activations import activation_errors
from edgewise.quantized import BlockQuantized, Format
from edgewise.recipe import Recipe, RecipeStep
from edgewise.tensors import Streamed, constant, map_rows, streamed
from edgewise.writer import write_model
from edgewise_plugins.accuracy_level import AccuracyLevel
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import Rule
from edgewise_plugins.w8a8 import W8A8
from edgewise_targets.ort.lower import LowerOrt
from lowered import Lowered

TEXT = tokens(8, 64)
ATTENTION, MLP = "model.layers.1.input_layernorm.weight", "model.layers.2.post_attention_layernorm.weight"
CHANNEL = 5


def massive(folder: Path, sizes: dict[str, float], **overrides: Any) -> ir.Model:
    """A model whose norms make one channel so many times larger, and whose matrices make up for it: the same logits."""
    model = calibrated(graph(tiny.checkpoint("llama", folder, **overrides)), TEXT)
    for name, size in sizes.items():
        value = model.graph.initializers[name]
        gains = streamed(value.const_value).read(0, 64).copy()
        gains[CHANNEL] *= size
        value.const_value = constant(gains)
        (norm,) = value.consumers()
        for linear in linears(model):
            if linear.node.inputs[0] is norm.outputs[0]:
                linear.replace(map_rows(linear.matrix, partial(_divided, by=size)))
    return model


def _divided(rows: np.ndarray, by: float) -> np.ndarray:
    rows = rows.copy()
    rows[:, CHANNEL] /= by
    return rows


def run(model: ir.Model, folder: Path, sequence: np.ndarray) -> np.ndarray:
    """The logits of a sequence by ONNX Runtime, lowered: float32 `[tokens, vocabulary]`."""
    facts, lowered = get_facts(model), LowerOrt()(model.clone()).model
    with tempfile.TemporaryDirectory(dir=folder) as place:
        write_model(lowered, path := Path(place) / "lowered.onnx")
        session = Lowered(parity.load(path), facts, len(sequence))
    return np.asarray(session([sequence.tolist()])[0])


def _same_for_all(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[:, CHANNEL] = 300
    return rows


def agreement(model: ir.Model, folder: Path) -> float:
    """The share of positions with the same most likely token as with the same weights and float activations."""
    (sequence,) = tokens(1, 200, seed=5)
    expected = logits(model, sequence[None])
    return float((run(model, folder, sequence).argmax(axis=1) == expected.argmax(axis=1)).mean())


def stated(model: ir.Model) -> dict[str, str]:
    return {linear.name: kind for linear in linears(model) if (kind := activations(linear.node))}


def readers(model: ir.Model, layer: int, *roles: str) -> set[str]:
    own = [linear for linear in linears(model) if linear.layer == layer]
    return {linear.name for linear in own if any(fnmatchcase(linear.role, pattern) for pattern in roles)}


def form(linear: Linear) -> Format:
    assert isinstance(linear.matrix, BlockQuantized)
    return linear.matrix.form


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {linear.name: linear.matrix.read(0, linear.matrix.dims[0]) for linear in linears(model)}


def test_a_massive_channel_flips_tokens_at_int8_and_not_with_the_chosen_level(tmp_path: Path) -> None:
    model = massive(tmp_path, {ATTENTION: 4096, MLP: 4096})
    Quantize(block_size=64)(model)
    assert agreement(model, tmp_path) < 0.5
    AccuracyLevel()(model)
    attention, mlp = readers(model, 1, "attention.[qkv]"), readers(model, 2, "mlp.gate", "mlp.up")
    assert stated(model) == dict.fromkeys(attention | mlp, FLOAT)
    assert agreement(model, tmp_path) > 0.9  # what is left is a tie or two: elsewhere activations are int8
    lowered = LowerOrt()(model).model
    levels = {str(node.name): node.attributes.get_int("accuracy_level") for node in lowered.graph if node.domain}
    assert levels["model.layers.1.self_attn.qkv"] == 0  # packed, as without
    assert levels["model.layers.0.self_attn.qkv"] == 4


def test_a_large_channel_takes_smaller_blocks_and_the_weights_stay_what_they_are(tmp_path: Path) -> None:
    model = massive(tmp_path, {ATTENTION: 16})
    Quantize(block_size=64)(model)
    before, found = weights(model), activation_errors(model, TEXT)
    names = readers(model, 1, "attention.[qkv]")
    limit = 0.9 * max(found[name] for name in names)
    AccuracyLevel(max_error=limit)(model)
    assert stated(model) == dict.fromkeys(names, "int8, block 32")
    assert {linear.name for linear in linears(model) if form(linear).block_size == 32} == names
    for name, matrix in weights(model).items():
        assert_array_equal(matrix, before[name])
    after = activation_errors(model, TEXT)
    assert max(after[name] for name in names) < limit
    lowered = LowerOrt()(model).model
    (packed,) = (node for node in lowered.graph if node.name == "model.layers.1.self_attn.qkv")
    assert (packed.attributes.get_int("block_size"), packed.attributes.get_int("accuracy_level")) == (32, 4)


def test_a_tied_lm_head_takes_its_embedding_along(tmp_path: Path) -> None:
    model = massive(tmp_path, {}, tie_word_embeddings=True)
    Quantize(block_size=64)(model)
    table = next(linear.name for linear in linears(model) if linear.role == "embedding")
    errors = activation_errors(model, TEXT, names=[table])
    others = Quantize(block_size=64, rules=(Rule(layers="0-3", keep=True),))
    model = others(massive(tmp_path, {}, tie_word_embeddings=True)).model
    AccuracyLevel(max_error=0.9 * errors[table])(model)
    assert stated(model) == {table: "int8, block 32"}
    assert {linear.role for linear in linears(model) if linear.name == table} == {"embedding", "lm_head"}
    assert agreement(model, tmp_path) > 0.9


def test_eight_bits_have_no_floats_to_fall_back_on_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = massive(tmp_path, {MLP: 4096})
    Quantize(bits=8, block_size=64)(model)
    with caplog.at_level(logging.WARNING):
        AccuracyLevel()(model)
    assert stated(model) == dict.fromkeys(readers(model, 2, "mlp.gate", "mlp.up"), "int8, block 32")
    (message,) = caplog.messages
    assert message.startswith("'model.layers.2.mlp.gate_proj.weight' and 'model.layers.2.mlp.up_proj.weight': int8 ")
    assert message.endswith("has no product with floats; keep it in floats, or quantize it to 4 bits")
    LowerOrt()(model)  # refuses what has no fast kernel


def test_rows_in_int8_are_measured_by_the_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = massive(tmp_path, {MLP: 4096})
    W8A8()(model)
    with caplog.at_level(logging.WARNING):
        AccuracyLevel()(model)
    assert stated(model) == {}
    assert len(caplog.messages) == 1
    assert all(isinstance(form(linear), Int8Rows) for linear in linears(model) if linear.layer is not None)


def test_a_second_graph_for_prompts_leaves_such_products_as_they_are(tmp_path: Path) -> None:
    model = massive(tmp_path, {ATTENTION: 4096})
    floats: dict[str, Streamed] = {}
    remember(model, floats)
    Quantize(block_size=64)(model)
    AccuracyLevel()(model)
    prompts = prefill_graph(model, floats, BuildContext())
    integer = {linear.name for linear in linears(prompts) if isinstance(form(linear), Int8Rows)}
    assert integer == {linear.name for linear in linears(model) if linear.layer is not None} - stated(model).keys()
    assert stated(prompts) == stated(model) != {}


def test_a_model_without_outliers_stays_as_it_is(pycoder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = calibrated(graph(pycoder), tokens(2, 512, vocabulary=4096))
    Quantize()(model)
    with caplog.at_level(logging.INFO):
        assert not AccuracyLevel()(model).modified
    assert stated(model) == {}
    assert "int8 activations: at most 0.01" in caplog.messages[0]


def test_where_there_is_a_text_a_build_measures_whatever_the_recipe(pycoder: Path, tmp_path: Path) -> None:
    text = CalibrationText(pycoder / "calibration.txt", tokens=512, length=256)
    bundle = build(pycoder, output=tmp_path / "a.edge", calibration=text)
    assert [step["pass"] for step in bundle.manifest.recipe] == ["quantize", "accuracy-level"]
    assert "activations" not in bundle.manifest.card
    recipe = Recipe((RecipeStep("quantize", {}), RecipeStep("accuracy-level", {"max_error": 1e-3})))
    strict = build(pycoder, output=tmp_path / "b.edge", calibration=text, recipe=recipe)
    assert [step["pass"] for step in strict.manifest.recipe] == ["quantize", "accuracy-level"]  # its own, once
    assert strict.manifest.card["activations"]["layer 3, mlp.down"] == FLOAT
    assert len(strict.manifest.card["activations"]) == 6 * 5 + 1  # q, k and v are one product
    assert "- lm_head: float32" in (strict.path / "README.md").read_text("utf-8")
    assert Bundle.open(strict.path).manifest == strict.manifest


def test_a_card_has_the_bytes_of_the_smaller_blocks(pycoder: Path, tmp_path: Path) -> None:
    text = CalibrationText(pycoder / "calibration.txt", tokens=512, length=256)
    recipe = Recipe((RecipeStep("quantize", {}), RecipeStep("accuracy-level", {"max_error": 0.01})))
    bundle = build(pycoder, output=tmp_path / "a.edge", calibration=text, recipe=recipe)
    assert set(bundle.manifest.card["activations"].values()) >= {"int8, block 32"}
    stored = sum(file.bytes for path, file in bundle.manifest.files.items() if path.endswith("_data"))
    assert bundle.manifest.card["bytes"]["after"] == pytest.approx(stored, rel=0.01)


def test_a_plan_runs_nothing(tmp_path: Path, pycoder: Path) -> None:
    model = massive(tmp_path, {MLP: 4096})
    Quantize(block_size=64)(model)
    calibration = context_of(model).calibration
    assert calibration is not None
    model.meta["edgewise"] = BuildContext(calibration=calibration, dry=True)
    assert not AccuracyLevel()(model).modified
    assert not calibration.used
    text = CalibrationText(pycoder / "calibration.txt", tokens=512, length=256)
    assert plan_build(pycoder, calibration=text).recipe[-1] == "accuracy-level(max_error=0.05)"
    assert len(plan_build(pycoder).recipe) == 1


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match=r"max_error: 0\.0 is not more than 0"):
        AccuracyLevel(max_error=0.0)


def test_without_a_text_it_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="pass 'accuracy-level' needs a calibration text"):
        AccuracyLevel()(graph(tiny.checkpoint("llama", tmp_path)))


def test_what_is_the_same_for_all_tokens_does_not_hide_the_noise(tmp_path: Path) -> None:
    model = massive(tmp_path, {})
    table = next(linear for linear in linears(model) if linear.role == "embedding")
    table.replace(map_rows(table.matrix, _same_for_all))
    Quantize(block_size=64, rules=(Rule(role="embedding", keep=True),))(model)
    (first, *_) = sorted(readers(model, 0, "attention.q"))
    (sequence,) = tokens(1, 64, seed=5)
    assert activation_errors(model, sequence[None])[first] > 0.2
