"""tests: the pass quantize on a calibration text: GPTQ over the layers of a model, and grids that know their inputs."""

import logging
import tracemalloc
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import tiny
from canonical import calibrated, graph, logits, tokens
from cases import CASES
from edgewise.errors import GraphError, OptionError, RecipeError
from edgewise.graph import Linear, Roles, linears
from edgewise.passes import BuildContext, context_of
from edgewise.quantized import BlockQuantized, Format
from edgewise.tensors import Streamed, constant, transpose
from edgewise_plugins.quantize import Quantize, sequential
from edgewise_plugins.quantize.factor import factorize
from edgewise_plugins.quantize.gptq import Moments
from edgewise_plugins.quantize.rules import Rule
from edgewise_plugins.quantize.spill import temporary

ENOUGH = tokens(12, 64)  # 4 tokens for each of 96 inputs, twice


def made(case: str, folder: Path, sequences: np.ndarray = ENOUGH) -> ir.Model:
    return calibrated(graph(tiny.checkpoint(CASES[case].family, folder, **CASES[case].overrides)), sequences)


def codes(model: ir.Model) -> dict[str, bytes]:
    found = {}
    for linear in linears(model):
        if isinstance(matrix := linear.matrix, BlockQuantized):
            found[linear.name] = matrix.packed.numpy().tobytes() + matrix.scales.numpy().tobytes()
    return found


def differing(model: ir.Model, other: ir.Model) -> set[str]:
    """The weights that are quantized in both, and not to the same bytes."""
    ours, theirs = codes(model), codes(other)
    return {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}


def same_roles(model: ir.Model, other: ir.Model) -> set[str]:
    """The roles of the weights that are quantized to the same bytes."""
    ours, theirs = codes(model), codes(other)
    return {linear.role for linear in linears(model) if ours[linear.name] == theirs[linear.name]}


@pytest.mark.parametrize("case", ["llama", "llama tied", "llama biased", "phi3", "qwen3", "gemma2", "olmo2"])
def test_gptq_is_closer_to_the_float_model_than_round_to_nearest(case: str, tmp_path: Path) -> None:
    expected = logits(made(case, tmp_path), fresh := tokens(8, 48, seed=9))
    distances = {}
    for method in ("gptq", "nearest"):
        model = made(case, tmp_path)
        Quantize(bits=4, block_size=32, method=method)(model)
        assert len(codes(model)) == len({linear.name for linear in linears(model)})
        distances[method] = float(np.square(logits(model, fresh) - expected).mean())
    # random weights, on tokens that it has not seen
    assert distances["gptq"] < 0.9 * distances["nearest"]


def test_later_layers_see_what_the_earlier_ones_became(tmp_path: Path) -> None:
    whole, without = made("llama", tmp_path), made("llama", tmp_path)
    Quantize(block_size=32, method="gptq")(whole)
    Quantize(block_size=32, method="gptq", rules=(Rule(layers="0", keep=True),))(without)
    quantized = {linear.name for linear in linears(whole) if linear.layer != 0}
    assert differing(without, whole) == quantized - {"model.embed_tokens.weight"}


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    models = [made("llama tied", tmp_path) for _ in range(2)]
    for model in models:
        Quantize(method="gptq")(model)
    assert codes(models[0]) == codes(models[1])


def test_without_a_text_gptq_says_what_it_needs(tmp_path: Path) -> None:
    model = graph(tiny.checkpoint("llama", tmp_path))
    with pytest.raises(RecipeError, match="method 'gptq' needs a calibration text: --calibration-text FILE"):
        Quantize(method="gptq")(model)


def test_with_few_tokens_grid_does_it_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = tokens(5, 64)  # 4 for each of 64 inputs, not of 96
    model, searched = made("llama", tmp_path, few), made("llama", tmp_path, few)
    with caplog.at_level(logging.WARNING):
        Quantize(block_size=32, method="gptq")(model)
    Quantize(block_size=32, method="grid")(searched)
    assert caplog.messages == [
        f"matrices of {features} input features are quantized by the method grid: GPTQ takes {4 * features} tokens "
        "for them, and the calibration text has 320"
        for features in (96, 128)
    ]
    assert same_roles(model, searched) == {"mlp.down", "attention.o", "embedding"}


def test_grids_know_what_their_inputs_are(tmp_path: Path) -> None:
    model, alike = made("llama", tmp_path), graph(tiny.checkpoint("llama", tmp_path))
    for each in (model, alike):
        Quantize(bits=2, block_size=32, method="grid")(each)
    assert differing(alike, model) == {linear.name for linear in linears(model) if linear.role != "embedding"}


def test_a_plan_knows_the_formats_and_runs_nothing(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    model.meta["edgewise"] = BuildContext(calibration=context_of(model).calibration, dry=True)
    Quantize(bits=8, method="gptq")(model)
    calibration = context_of(model).calibration
    assert calibration is not None
    assert not calibration.used
    assert {linear.matrix.form.bits for linear in linears(model) if isinstance(linear.matrix, BlockQuantized)} == {8}


def test_rules_choose_the_method_of_each_matrix(tmp_path: Path) -> None:
    rules = (Rule(role="mlp.*", method="hqq"), Rule(role="lm_head", method="nearest", bits=8))
    model, simple = made("llama", tmp_path), graph(tiny.checkpoint("llama", tmp_path))
    Quantize(block_size=32, method="gptq", rules=rules)(model)
    Quantize(block_size=32, rules=(Rule(role="mlp.*", method="hqq"), Rule(role="lm_head", bits=8)))(simple)
    assert same_roles(model, simple) == {"mlp.gate", "mlp.up", "mlp.down", "lm_head"}


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
def test_damping_is_more_than_nothing(damping: float) -> None:
    with pytest.raises(OptionError, match=r"damping: .* is not more than 0"):
        Quantize(damping=damping)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_no_numbers_are_refused_with_their_layer(value: float, tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    gain = Roles.of(model).one("mlp.norm", 1).inputs[1]
    assert gain is not None
    gain.const_value = constant(np.full(64, value, np.float32), name=gain.name)
    with pytest.raises(GraphError, match=r"layer 1: the input of '.+mlp.+' holds NaN or infinity on this text"):
        Quantize(method="gptq")(model)


def test_memory_follows_the_rows_at_hand_and_not_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential, "ELEMENTS", 1 << 16)
    row = np.random.default_rng(0).normal(size=(1, 128)).astype(np.float32)
    tall = Streamed((1 << 15, 128), ir.DataType.FLOAT, lambda a, b: np.repeat(row, b - a, axis=0), name="w")
    value = ir.Value(name="w", const_value=transpose(tall))
    linear = Linear(ir.node("MatMul", [ir.Value(name="x"), value]), "lm_head", None, value)
    gram = np.eye(128, dtype=np.float32)
    tracemalloc.start()
    sequential.quantize_matrix(linear, Moments(gram, factorize(gram, 0.01)), Format(4, 128, False), temporary(tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # the matrix has 16 MiB
    assert isinstance(linear.matrix, BlockQuantized)
