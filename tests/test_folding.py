"""tests: passes that fold scales and rotations into weights: they change no logits, and do what they are for."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import tiny
from canonical import calibrated, graph, logits, tokens
from cases import CASES
from edgewise.errors import GraphError, OptionError, RecipeError
from edgewise.graph import Linear, Roles, get_facts, linears, mark
from edgewise.passes import BuildContext, Pass, context_of
from edgewise.quantized import Format
from edgewise.tensors import constant, streamed
from edgewise_plugins.absorb import pairs
from edgewise_plugins.awq import Awq, rounding_error, scales_for, search
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.blocks import in_blocks
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.rotate import Rotate
from edgewise_plugins.smooth import SmoothQuant, int8_error, smoothing

TEXT = tokens(4, 32)
STEPS: tuple[Callable[[], Pass], ...] = (Awq, SmoothQuant, Rotate)
POST_NORMS = ("gemma2", "gemma3", "olmo2")
SCALED = ["llama", "llama tied", "llama biased", "qwen2", "qwen3", "phi3", "smollm3 window", *POST_NORMS]
ROTATED = [case for case in SCALED if case not in POST_NORMS]


def unmeasured(case: str, folder: Path) -> ir.Model:
    """Without a text on which a pass could find that it does not pay."""
    return graph(tiny.checkpoint(CASES[case].family, folder, **CASES[case].overrides))


def made(case: str, folder: Path) -> ir.Model:
    return calibrated(unmeasured(case, folder), TEXT)


def by_role(model: ir.Model, role: str, layer: int = 0) -> Linear:
    return next(linear for linear in linears(model) if (linear.role, linear.layer) == (role, layer))


def outlying(model: ir.Model) -> None:
    """Give a few channels that leave the norms of a model the size that they have in large ones."""
    for norm in ("attention.norm", "mlp.norm"):
        for layer in range(get_facts(model).layers):
            gain = Roles.of(model).one(norm, layer).inputs[1]
            assert gain is not None
            values = streamed(gain.const_value).numpy().copy()
            values[[3, 17]] *= 40
            gain.const_value = constant(values, name=gain.name)


@pytest.mark.parametrize("step", [Awq, SmoothQuant])
@pytest.mark.parametrize("case", SCALED)
def test_scales_change_no_logits(step: Callable[[], Pass], case: str, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    before = logits(model, TEXT)
    assert step()(model).modified
    np.testing.assert_allclose(logits(model, TEXT), before, atol=1e-4 * np.abs(before).max())


@pytest.mark.parametrize("case", ROTATED)
def test_a_rotation_changes_no_logits(case: str, tmp_path: Path) -> None:
    model = unmeasured(case, tmp_path)
    before, weights = logits(model, TEXT), by_role(model, "mlp.down").matrix.numpy()
    Rotate()(model)
    np.testing.assert_allclose(logits(model, TEXT), before, atol=1e-4 * np.abs(before).max())
    assert np.abs(by_role(model, "mlp.down").matrix.numpy() - weights).max() > 0.1 * np.abs(weights).max()


@pytest.mark.parametrize("case", POST_NORMS)
def test_a_model_that_does_not_turn_is_refused_by_name(case: str, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    with pytest.raises(GraphError, match=r"node 'model.layers.0.+\(role 'attention.+'\) cannot be rotated: "):
        Rotate()(model)
    assert all(value.const_value is before[name] for name, value in model.graph.initializers.items())


def test_a_layer_of_another_kind_is_refused_before_anything_turns(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    Roles.of(model).one("mlp.down", 2).metadata_props["edgewise.role"] = "expert.down"
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    with pytest.raises(GraphError, match=r"layer 2 has no matrix product with role 'mlp.down': it cannot be rotated"):
        Rotate()(model)
    assert all(value.const_value is before[name] for name, value in model.graph.initializers.items())


def test_outliers_are_spread_by_a_rotation(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    outlying(model)

    def peak(model: ir.Model) -> float:
        calibration = context_of(model).calibration
        assert calibration is not None
        inputs = calibration.statistics(model)[by_role(model, "attention.q", 1).name]
        return float((inputs.max_abs / np.sqrt(inputs.second_moment.mean())).max())

    before = peak(model)
    Rotate()(model)
    assert peak(model) < 0.6 * before


def test_a_rotation_that_does_not_pay_is_not_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = made("llama", tmp_path)
    for linear in linears(model):
        matrix, form = linear.matrix, Format(4, 32, False)
        rounded = nearest(in_blocks(matrix.numpy(), form.block_size), form).weights()
        linear.replace(constant(rounded.reshape(matrix.dims)))  # nothing is lost when this is rounded
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    model.meta["edgewise"] = replace(context_of(model), following=(Quantize(block_size=32),))
    with caplog.at_level(logging.INFO):
        assert not Rotate()(model).modified
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == before
    assert caplog.messages[-1].startswith("rotate: rounding makes ")
    assert caplog.messages[-1].endswith("; the model is left as it was")


def test_a_tied_head_becomes_a_matrix_of_its_own(tmp_path: Path) -> None:
    model = unmeasured("llama tied", tmp_path)
    Rotate()(model)
    names = {linear.role: linear.name for linear in linears(model)}
    assert (names["embedding"], names["lm_head"]) == ("model.embed_tokens.weight", "lm_head.weight")
    assert not get_facts(model).tied


def test_awq_brings_the_products_of_rounded_weights_closer(tmp_path: Path) -> None:
    scaled, plain = made("llama", tmp_path), made("llama", tmp_path)
    for model in (scaled, plain):
        outlying(model)
    expected = logits(plain, TEXT)
    Awq(block_size=32)(scaled)
    for model in (scaled, plain):
        Quantize(block_size=32)(model)
    ours, theirs = (np.square(logits(model, TEXT) - expected).mean() for model in (scaled, plain))
    assert ours < 0.8 * theirs


def test_smoothquant_gives_activations_less_to_span(tmp_path: Path) -> None:
    scaled, plain = made("llama", tmp_path), made("llama", tmp_path)
    for model in (scaled, plain):
        outlying(model)
    SmoothQuant()(scaled)
    spans = []
    for model in (scaled, plain):
        calibration = context_of(model).calibration
        assert calibration is not None
        largest = calibration.statistics(model)[by_role(model, "mlp.gate").name].max_abs
        spans.append(largest.max() / np.median(largest))
    assert spans[0] < 0.5 * spans[1]


def test_smoothing_that_would_make_int8_worse_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = made("llama", tmp_path)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    with caplog.at_level("INFO", logger="edgewise_plugins.smooth"):
        assert not SmoothQuant(strength=1.0)(model).modified  # there are no outliers, and all weights would have some
    readers = [pair.readers[0].name for layer in pairs(model).values() for pair in layer]
    assert f"int8 is closer without scales for what enters {', '.join(readers)}" in caplog.text
    assert all(value.const_value is before[name] for name, value in model.graph.initializers.items())


def test_the_error_of_int8_is_that_of_its_parts() -> None:
    rng = np.random.default_rng(0)
    x, weights = (rng.standard_t(3, size).astype(np.float32) for size in ((7, 90), (5, 90)))
    steps, scales = np.abs(x).max(axis=1, keepdims=True) / 127, np.abs(weights).max(axis=1, keepdims=True) / 128
    ours, theirs = np.rint(x / steps) * steps, np.clip(np.rint(weights / scales), -128, 127) * scales
    assert int8_error(x, weights) == pytest.approx(np.square(ours @ theirs.T - x @ weights.T).sum(), rel=0.1)


def test_every_pair_of_a_layer_is_found(tmp_path: Path) -> None:
    found = pairs(made("phi3", tmp_path))[2]
    assert [[linear.role for linear in pair.readers] for pair in found] == [
        ["attention.q", "attention.k", "attention.v"],
        ["mlp.gate", "mlp.up"],
        ["attention.o"],
        ["mlp.down"],
    ]


@pytest.mark.parametrize("step", STEPS)
def test_quantized_weights_are_refused(step: Callable[[], Pass], tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    Quantize()(model)
    with pytest.raises(
        GraphError, match=r"is quantized already \(int4, block 128, asymmetric\): (scale|rotate) before"
    ):
        step()(model)


def reorder(model: ir.Model) -> None:
    """Let attention.o of layer 0 have its input features in another order, as imported checkpoints do."""
    linear = by_role(model, "attention.o")
    (value, *_), columns = linear.node.inputs, linear.matrix.dims[1]
    order = np.random.default_rng(0).permutation(columns)
    index = ir.Value(name="order", shape=ir.Shape([columns]), const_value=constant(order, name="order"))
    gather = ir.node("Gather", [value, index], {"axis": 2})
    model.graph.register_initializer(index)
    model.graph.insert_before(linear.node, mark(gather, "attention.o.order", 0))
    linear.node.replace_input_with(0, gather.outputs[0])
    linear.replace(constant(linear.matrix.numpy()[:, order]))


def test_scales_pass_by_features_in_another_order(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    before = logits(model, TEXT)
    reorder(model)
    assert len(pairs(model)[0]) == 3
    Awq()(model)
    np.testing.assert_allclose(logits(model, TEXT), before, atol=1e-4 * np.abs(before).max())


def test_features_in_another_order_are_not_turned(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    reorder(model)
    with pytest.raises(GraphError, match=r"role 'attention.o.order'\) cannot be rotated: what comes after has its"):
        Rotate()(model)


@pytest.mark.parametrize(("step", "name"), [(Awq, "awq"), (SmoothQuant, "smoothquant")])
def test_without_a_text_a_pass_says_what_it_needs(step: Callable[[], Pass], name: str, tmp_path: Path) -> None:
    model = graph(tiny.checkpoint("llama", tmp_path))
    with pytest.raises(RecipeError, match=f"pass '{name}' needs a calibration text: --calibration-text FILE"):
        step()(model)


@pytest.mark.parametrize("step", [Awq, SmoothQuant])
def test_a_plan_runs_nothing(step: Callable[[], Pass], tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    calibration = context_of(model).calibration
    assert calibration is not None
    model.meta["edgewise"] = BuildContext(calibration=calibration, dry=True)
    assert not step()(model).modified
    assert not calibration.used


def test_the_error_that_awq_minimises_is_that_of_the_products() -> None:
    rng = np.random.default_rng(0)
    weights, inputs = rng.normal(size=(20, 96)).astype(np.float32), rng.normal(size=(500, 96)).astype(np.float32)
    scales, form = np.exp(rng.normal(size=96)), Format(4, 32, False)
    rounded = np.empty_like(weights)
    for row in range(20):
        scaled = (weights[row] * scales.astype(np.float32))[None]
        rounded[row] = nearest(in_blocks(scaled, 32), form).weights().reshape(-1) / scales
    products = np.square(inputs @ rounded.T - inputs @ weights.T).sum() / 500
    assert rounding_error(weights, scales, inputs.T @ inputs / 500, form) == pytest.approx(products, rel=1e-3)


def test_awq_leaves_what_no_scale_makes_better(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    calibration = context_of(model).calibration
    assert calibration is not None
    statistics = calibration.statistics(model, gram=True)
    for pair in pairs(model)[0]:
        scales = search(pair, statistics[pair.readers[0].name], Format(8, 32, False))
        gram = statistics[pair.readers[0].name].gram
        assert gram is not None
        weights = np.concatenate([linear.matrix.numpy() for linear in pair.readers])
        plain = rounding_error(weights, np.ones(len(gram)), gram, Format(8, 32, False))
        assert rounding_error(weights, pair.spread(scales), gram, Format(8, 32, False)) <= plain


def test_awq_scales_are_around_one() -> None:
    scales = scales_for(np.array([0, 1e-3, 1, 50], np.float32), 0.5)
    assert scales.max() * scales.min() == pytest.approx(1)
    assert (scales_for(np.array([0.1, 7], np.float32), 0.0) == 1).all()


def test_smoothing_is_the_published_formula_and_leaves_dead_channels() -> None:
    activations, weights = np.array([4, 0, 9, 1], np.float32), np.array([1, 2, 0, 0.25], np.float32)
    assert smoothing(activations, weights, 0.5).tolist() == [2, 1, 1, 2]
    assert smoothing(activations, weights, 1.0).tolist() == [4, 1, 1, 1]


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_is_from_0_to_1(strength: float) -> None:
    with pytest.raises(OptionError, match=r"strength: .+ is not from 0 to 1"):
        SmoothQuant(strength=strength)
