"""tests: learned rounding: a layer in torch as in ONNX Runtime, formulas as slow ones, models that come closer."""

import logging
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

import tiny
from canonical import calibrated, graph, logits, tokens
from cases import CASES
from edgewise.calibration.walk import Walk
from edgewise.errors import GraphError, MissingExtra, OptionError, RecipeError
from edgewise.graph import linears
from edgewise.passes import BuildContext, context_of
from edgewise.quantized import BlockQuantized, Format
from edgewise_plugins.differentiable import Layer
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.autoround import Learned, coded_of
from edgewise_plugins.quantize.blocks import Coded, in_blocks
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.quantize.rules import Rule

torch.set_num_threads(1)  # matrices this small gain nothing by two, and lose much where others want the processor

ENOUGH = tokens(12, 64)  # 4 tokens for each of 96 inputs, twice
FORMATS = [Format(bits, size, symmetric) for bits in (2, 4, 8) for size in (32, 64) for symmetric in (False, True)]


def made(case: str, folder: Path, sequences: np.ndarray = ENOUGH) -> ir.Model:
    return calibrated(graph(tiny.checkpoint(CASES[case].family, folder, **CASES[case].overrides)), sequences)


def codes(model: ir.Model) -> dict[str, bytes]:
    found = {}
    for linear in linears(model):
        matrix = linear.matrix
        assert isinstance(matrix, BlockQuantized)
        found[linear.name] = matrix.packed.numpy().tobytes() + matrix.scales.numpy().tobytes()
    return found


def random(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_t(4, (rows, columns)) * 0.02).astype(np.float32)


LAYERS = ["gemma2", "gemma3", "llama biased", "llama dynamic", "olmo2", "phi3", "qwen3", "smollm3"]


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_in_torch_says_what_it_says_in_onnx_runtime(case: str, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    walk = Walk(model, tokens(3, 40), folder=tmp_path, context=CASES[case].context)
    for index in walk.layers:
        layer, x = Layer(walk, index), torch.tensor(walk.hidden.read(0, 3))
        walk.advance(index)
        with torch.no_grad():
            found = layer(x, {}).numpy()
        expected = walk.hidden.read(0, 3)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("columns", [128, 33])
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_what_is_learned_begins_with_the_codes_that_it_is_given(form: Format, columns: int) -> None:
    weights, rng = random(6, columns), np.random.default_rng(1)
    coded = nearest(in_blocks(weights, form.block_size), form)
    moved = np.clip(coded.codes.astype(int) + rng.integers(-2, 3, coded.codes.shape), 0, form.top).astype(np.uint8)
    beyond = np.arange(moved[0].size).reshape(moved[0].shape) >= columns
    start = Coded(np.where(beyond, coded.codes, moved), coded.scales, coded.zero_points)
    found = Learned(weights, start, form, device="cpu")
    for ours, theirs in zip(found.coded(), start, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    expected = start.weights().reshape(6, -1)[:, :columns]
    np.testing.assert_array_equal(found.weights().detach().numpy(), expected)
    stored = coded_of(start.stored(form), form)
    for ours, theirs in zip(stored, start, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_weights_and_their_derivatives_are_those_of_the_formula(form: Format) -> None:
    weights, rng = random(4, 96), np.random.default_rng(2)
    start = nearest(in_blocks(weights, form.block_size), form)
    learned = Learned(weights, start, form, device="cpu")
    with torch.no_grad():
        learned.moved += torch.tensor(rng.uniform(-0.5, 0.5, learned.moved.shape).astype(np.float32))
        for end in learned.ends:
            end += torch.tensor(rng.uniform(-0.3, 0.3, end.shape).astype(np.float32))
    against = rng.standard_normal((4, 96)).astype(np.float32)
    found = learned.weights()
    (found * torch.tensor(against)).sum().backward()  # type: ignore[no-untyped-call]
    floats, moved = (tensor.detach().numpy() for tensor in (found, learned.moved))
    assert learned.moved.grad is not None
    derivative = learned.moved.grad.flatten(1)[:, :96]
    low, high = learned.ends[0].detach().numpy()[..., 0], learned.ends[-1].detach().numpy()[..., 0]
    for row in range(4):
        for column in range(96):
            block, place = divmod(column, form.block_size)
            s, z, top = float(start.scales[row, block]), float(start.zero_points[row, block]), form.top
            f = ((top - z) * float(high[row, block]) + z * float(low[row, block])) / top
            zero_point = z if form.symmetric else float(np.clip(np.rint(z * float(low[row, block]) / f), 0, top))
            exact = float(weights[row, column]) / (f * s) + float(moved[row, block, place]) + zero_point
            slow = (np.clip(np.rint(exact), 0, top) - zero_point) * f * s
            assert floats[row, column] == pytest.approx(slow, abs=2e-6)
            inside = 0 <= np.rint(exact) <= top
            assert float(derivative[row, column]) == pytest.approx(inside * f * s * against[row, column], abs=1e-6)


@pytest.mark.parametrize("case", ["llama", "gemma2", "phi3"])
def test_on_its_text_a_model_comes_closer_than_by_gptq(case: str, tmp_path: Path) -> None:
    text = tokens(24, 64)
    expected = logits(made(case, tmp_path), text)
    distances = {}
    for method in ("gptq", "autoround"):
        model = made(case, tmp_path, text)
        Quantize(block_size=32, method=method, steps=20)(model)
        distances[method] = float(np.square(logits(model, text) - expected).mean())
    assert distances["autoround"] < 0.95 * distances["gptq"]


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    models = [made("llama tied", tmp_path) for _ in range(2)]
    for model in models:
        Quantize(block_size=32, method="autoround", steps=5)(model)
    assert codes(models[0]) == codes(models[1])


def test_a_layer_that_learning_makes_worse_keeps_what_gptq_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, compensated = made("llama", tmp_path), made("llama", tmp_path)
    with caplog.at_level(logging.INFO):
        Quantize(bits=8, block_size=32, method="autoround", steps=1)(model)  # one step of half a weight's step
    said = [message for message in caplog.messages if "what was learned" in message]
    assert said == [
        f"layer {layer} keeps gptq, which is closer on this text than what was learned" for layer in range(4)
    ]
    Quantize(bits=8, block_size=32, method="gptq")(compensated)
    assert codes(model) == codes(compensated)


def test_only_the_matrices_that_are_to_be_learned_are(tmp_path: Path) -> None:
    model, compensated = made("llama tied", tmp_path), made("llama tied", tmp_path)
    rules = (Rule(role="mlp.*", layers="3", method="autoround"),)
    Quantize(block_size=32, method="gptq", rules=rules, steps=20)(model)
    Quantize(block_size=32, method="gptq")(compensated)
    ours, theirs = codes(model), codes(compensated)
    differing = {linear.role for linear in linears(model) if ours[linear.name] != theirs[linear.name]}
    assert differing == {"mlp.gate", "mlp.up", "mlp.down"}


def test_a_plan_knows_the_formats_and_learns_nothing(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    model.meta["edgewise"] = BuildContext(calibration=context_of(model).calibration, dry=True)
    Quantize(method="autoround")(model)
    calibration = context_of(model).calibration
    assert calibration is not None
    assert not calibration.used


def test_an_operator_without_a_derivative_is_named(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    walk = Walk(model, tokens(1, 8), folder=tmp_path)
    node = next(node for node in model.graph if node.op_type == "Sigmoid")
    node.op_type = "Softplus"
    with pytest.raises(GraphError, match=rf"node '{node.name}': nothing is learned through 'Softplus'; .* layer 0 by"):
        Layer(walk, 0)


def test_without_torch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama", tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"edgewise\[distill\]"):
        Quantize(method="autoround")(model)


def test_without_a_text_it_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="method 'autoround' needs a calibration text"):
        Quantize(method="autoround")(graph(tiny.checkpoint("llama", tmp_path)))


def test_no_steps_are_refused() -> None:
    with pytest.raises(OptionError, match="steps: 0 is not 1 or more"):
        Quantize(method="autoround", steps=0)
