"""tests: how tokens are given to experts: by sigmoids, corrections and groups, beside plain NumPy; and what becomes of
clamped experts, biases and sinks in the dialect."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import parity
from canonical import calibrated, logits
from edgewise.calibration.collect import collect
from edgewise.checkpoint import Checkpoint
from edgewise.errors import EdgewiseError
from edgewise.facts import Experts
from edgewise.graph import Roles, get_facts, linears
from edgewise.passes import Pass
from edgewise.planner.count import count
from edgewise.prepare import prepare
from edgewise.recipe import Recipe, RecipeStep
from edgewise.tensors import streamed
from edgewise.writer import write_model
from edgewise_exporters.decoder import Decoder
from edgewise_plugins.awq import Awq
from edgewise_plugins.moe.prune import ActiveExperts, PruneExperts
from edgewise_plugins.prune.heads import PruneHeads
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import Rule
from edgewise_plugins.rotate import Rotate
from edgewise_plugins.smooth import SmoothQuant
from edgewise_targets.ort.lower import LowerOrt
from edgewise_targets.primitive.lower import LowerPrimitive
from lowered import Lowered
from walks import TOKENS, whole

NAMES = ["dots1", "glm4_moe", "glm4_moe plain", "gpt_oss"]

pytestmark = pytest.mark.usefixtures("cache")


def gates_of(scores: np.ndarray, correction: np.ndarray, e: Experts) -> np.ndarray:
    """Of each expert, `[tokens, experts]`, one token after the other."""
    gates = np.zeros_like(scores)
    for token, own in enumerate(scores):
        choice = (own + correction).reshape(e.groups, -1)
        best = np.argsort(-np.sort(choice, axis=1)[:, -2:].sum(axis=1))[: e.active_groups]
        allowed = np.full_like(choice, -np.inf)
        allowed[best] = choice[best]
        chosen = np.argsort(-allowed.ravel())[: e.active]
        gates[token, chosen] = own[chosen] / (own[chosen].sum() if e.normalized else 1) * e.scale
    return gates


@pytest.mark.parametrize("name", ["dots1", "glm4_moe", "glm4_moe plain"])
def test_gates_are_those_of_plain_numpy(name: str, home: Path, tmp_path: Path) -> None:
    model = parity.export(name, home)
    roles, mixture, layer = Roles.of(model), get_facts(model).experts[2], 2
    assert mixture is not None
    inputs, outputs = roles.one("router.correction", layer).inputs, roles.one("router.gates", layer).inputs
    names = [str(value.name) for value in (inputs[0], outputs[0]) if value is not None]
    scores, found = (array.reshape(-1, mixture.count) for array in whole(model, TOKENS, names, tmp_path).values())
    correction = streamed(inputs[1].const_value).numpy() if inputs[1] else None
    assert correction is not None
    np.testing.assert_allclose(found, gates_of(scores, correction, mixture), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [None, Quantize(block_size=32), Quantize(bits=8, block_size=32, symmetric=True)])
def test_one_operator_computes_what_all_experts_of_a_layer_compute(
    form: Quantize | None, name: str, home: Path, tmp_path: Path
) -> None:
    model = parity.export(name, home)
    model = form(model).model if form else model
    expected = logits(model, TOKENS)
    sparse = sum(map(bool, get_facts(model).experts))
    rounded = form is not None and form.bits == 8  # no kernel multiplies 8 bits with float activations
    lowered = LowerOrt(accuracy_level=4 if rounded else 0)(model).model
    assert [node.op_type for node in lowered.graph].count("QMoE" if form else "MoE") == sparse
    error = run(lowered, tmp_path) - expected
    if rounded:  # and a few tokens go to other experts
        assert np.square(error).mean() < 0.1**2 * np.square(expected).mean()
    else:
        assert np.abs(error).max() < 1e-3 * np.abs(expected).max()


def run(lowered: ir.Model, folder: Path) -> np.ndarray:
    """Logits of a lowered graph, `[tokens, vocabulary]`."""
    write_model(lowered, folder / "lowered.onnx")
    session = Lowered(parity.load(folder / "lowered.onnx"), get_facts(lowered), 256)
    return np.concatenate(session(list(TOKENS)))


def test_sinks_are_an_input_of_attention(home: Path) -> None:
    lowered = LowerOrt()(parity.export("gpt_oss", home)).model
    nodes = [node for node in lowered.graph if node.op_type == "GroupQueryAttention"]
    assert [str(node.inputs[11].name) for node in nodes if node.inputs[11]] == [
        f"model.layers.{index}.self_attn.sinks" for index in range(4)
    ]
    assert not any(Roles.of(lowered).all("attention.sink", index) for index in range(4))


def test_clamped_experts_that_are_no_one_operator_stay_what_they_are(home: Path, tmp_path: Path) -> None:
    rules = (Rule(role="expert.down", symmetric=True),)  # there is no operator for both
    model = Quantize(block_size=32, rules=rules)(parity.export("gpt_oss", home)).model
    expected = logits(model, TOKENS)
    lowered = LowerOrt(accuracy_level=0)(model).model
    assert "QMoE" not in {node.op_type for node in lowered.graph}
    np.testing.assert_allclose(run(lowered, tmp_path), expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["glm4_moe", "gpt_oss"])
def test_experts_are_counted_as_their_gates_say(name: str, home: Path, tmp_path: Path) -> None:
    model = parity.export(name, home)
    statistics = collect(model, TOKENS, gram=True)
    roles = Roles.of(model)
    for layer, found in statistics.experts.items():
        down = roles.all("expert.down.bias", layer) or roles.all("expert.down", layer)
        names = [str(node.outputs[0].name) for node in down]
        gates = roles.one("router.gates", layer).inputs[0]
        assert gates is not None
        folder = tmp_path / str(layer)
        folder.mkdir()
        values = whole(model, TOKENS, [str(gates.name), *names], folder)
        weights = values[str(gates.name)].reshape(TOKENS.size, -1)
        assert found.counts.tolist() == np.count_nonzero(weights, axis=0).tolist()
        for number, output in enumerate(names):
            own = weights[:, number] > 0
            norms = np.linalg.norm(values[output].reshape(TOKENS.size, -1)[own], axis=1)
            np.testing.assert_allclose(found.norms[number], norms.sum() / max(1, own.sum()), rtol=1e-4)


@pytest.mark.parametrize("name", ["glm4_moe", "gpt_oss"])
@pytest.mark.parametrize("scaling", [SmoothQuant(), Awq(block_size=32)])
def test_scales_change_no_output(scaling: Pass, name: str, home: Path) -> None:
    expected = logits(parity.export(name, home), TOKENS)
    model = scaling(calibrated(parity.export(name, home), TOKENS)).model
    np.testing.assert_allclose(logits(model, TOKENS), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["glm4_moe plain", "gpt_oss"])
def test_fewer_experts_are_lowered_to_what_they_compute(name: str, home: Path, tmp_path: Path) -> None:
    model = calibrated(parity.export(name, home), TOKENS)
    PruneExperts(keep=4)(model)
    ActiveExperts(active=2)(model)
    Quantize(block_size=32, method="gptq")(model)
    expected = logits(model, TOKENS)
    found = run(LowerOrt(accuracy_level=0)(model).model, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "step", "message"),
    [
        ("glm4_moe", PruneExperts(keep=4), "layer 1 chooses its experts in 4 groups"),
        ("glm4_moe", Rotate(), "layer 1 has no matrix product with role 'mlp.down': it cannot be rotated"),
        ("gpt_oss", Rotate(), "layer 0 has no matrix product with role 'mlp.down': it cannot be rotated"),
        ("gpt_oss", PruneHeads(keep=0.5), "layer 0: each of its heads has a sink"),
        ("gpt_oss", LowerPrimitive(), "attention with 'sinks' = True"),
    ],
)
def test_what_a_step_does_not_know_is_one_line(name: str, step: Pass, message: str, home: Path) -> None:
    with pytest.raises(EdgewiseError, match=message):
        step(calibrated(parity.export(name, home), TOKENS))


def test_layers_that_guess_further_tokens_are_left_out(home: Path) -> None:
    checkpoint = Checkpoint.open(parity.oracle("glm4_moe", home).checkpoint)
    tensors = dict(checkpoint.tensors)
    tensors["model.layers.4.eh_proj.weight"] = tensors["model.layers.3.self_attn.o_proj.weight"]
    with_one = {**checkpoint.config, "num_nextn_predict_layers": 1}
    model = Decoder().export(replace(checkpoint, tensors=tensors, config=with_one))
    assert {linear.layer for linear in linears(model)} == {None, 0, 1, 2, 3}
    with pytest.raises(EdgewiseError, match=r"'model.layers.4.eh_proj.weight', .* has no place"):
        Decoder().export(replace(checkpoint, tensors=tensors, config=with_one | {"num_nextn_predict_layers": 0}))


ATTENTION = (4 + 2 + 2 + 4) * 32 * 64  # queries, keys, values and their way back, of the tiny checkpoints
EXPERT, HEAD = 3 * 32 * 64, 160 * 64
READ = {  # parameters that are multiplied for a token, by hand
    "glm4_moe": 4 * ATTENTION + 3 * 96 * 64 + 3 * (8 * 64 + 3 * EXPERT + 2 * EXPERT) + HEAD,
    "gpt_oss": 4 * (ATTENTION + 6 * 64 + 3 * EXPERT) + HEAD,
}


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("name", READ)
def test_a_token_reads_what_a_count_by_hand_says(name: str, bits: int | None, home: Path) -> None:
    steps = (RecipeStep("quantize", {"bits": 8, "block_size": 32}),) if bits else ()
    checkpoint = parity.oracle(name, home).checkpoint
    prepared = prepare(checkpoint, target="cpu-x64", recipe=Recipe(steps), context=None, ignore_config=(), dry=True)
    products = count(prepared.model).products
    assert sum(product.operations for product in products) == 2 * READ[name]
    if not bits:
        assert sum(product.read(1, packed=False) for product in products) == 4 * READ[name]
