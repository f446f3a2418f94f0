"""tests: what a calibration sees of experts: the tokens given to each, how often, and what they then add."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.testing import assert_allclose

from canonical import calibrated, logits, tokens
from edgewise.calibration.collect import collect
from edgewise.errors import GraphError
from edgewise.graph import activations, get_facts, linears
from edgewise.passes import Pass
from edgewise.quantized import BlockQuantized
from edgewise.sizes import sizes_of, total
from edgewise.tensors import constant
from edgewise_plugins.accuracy_level import AccuracyLevel
from edgewise_plugins.awq import Awq
from edgewise_plugins.mix import Mix
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import ROUTERS, Method
from edgewise_plugins.rotate import Rotate
from edgewise_plugins.smooth import SmoothQuant
from edgewise_targets.ort.lower import LowerOrt
from walks import TOKENS, export, whole

FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe")


pytestmark = pytest.mark.usefixtures("cache")


def inputs_of(model: ir.Model, folder: Path) -> list[np.ndarray]:
    """What enters the mixture of each layer, float64 `[tokens, hidden]`, by the whole graph."""
    routers = [linear.node.inputs[0] for linear in linears(model) if linear.role == "router"]
    names = [str(value.name) for value in routers if value is not None]
    values = whole(model, TOKENS, names, folder)
    return [values[name].reshape(TOKENS.size, -1).astype(np.float64) for name in names]


def experts_of(model: ir.Model, layer: int) -> list[dict[str, np.ndarray]]:
    """The matrices of each expert by role."""
    count = max(linear.expert or 0 for linear in linears(model)) + 1
    found: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for linear in linears(model):
        if linear.layer == layer and linear.expert is not None:
            found[linear.expert][linear.role] = linear.matrix.numpy().astype(np.float64)
    return found


def gates_of(model: ir.Model, layer: int, x: np.ndarray) -> np.ndarray:
    """Of each expert, `[tokens, experts]`; 0 where it is not among the chosen."""
    (router,) = (one.matrix.numpy() for one in linears(model) if one.role == "router" and one.layer == layer)
    mixture = get_facts(model).experts[layer]
    assert mixture is not None
    gates = np.zeros((len(x), mixture.count))
    for token, row in enumerate(x @ router.T.astype(np.float64)):
        probabilities = np.exp(row) / np.exp(row).sum()
        chosen = np.argsort(-probabilities)[: mixture.active]
        total = probabilities[chosen].sum() if mixture.normalized else 1
        gates[token, chosen] = probabilities[chosen] / total
    return gates


def compute(expert: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What enters the last matrix of an expert, and what leaves it."""
    wide = x @ expert["expert.gate"].T
    product = wide / (1 + np.exp(-wide)) * (x @ expert["expert.up"].T)
    return product, product @ expert["expert.down"].T


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_gates_and_saliencies_are_those_of_plain_numpy(family: str, home: Path, tmp_path: Path) -> None:
    model = export(family, home)
    statistics = collect(model, TOKENS)
    assert list(statistics.experts) == list(range(get_facts(model).layers))
    for layer, x in enumerate(inputs_of(model, tmp_path)):
        found, gates = statistics.experts[layer], gates_of(model, layer, x)
        assert found.tokens == TOKENS.size
        assert found.counts.tolist() == (gates > 0).sum(axis=0).tolist()
        assert_allclose(found.gates, gates.sum(axis=0), rtol=1e-5)
        for number, expert in enumerate(experts_of(model, layer)):
            own = gates[:, number] > 0
            norms = np.linalg.norm(compute(expert, x[own])[1], axis=1)
            assert_allclose(found.saliency[number], (gates[own, number] * norms).mean(), rtol=1e-5)
            assert_allclose(found.norms[number], norms.mean(), rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_linears_of_an_expert_see_the_tokens_that_are_given_to_it(family: str, home: Path, tmp_path: Path) -> None:
    model = export(family, home)
    statistics = collect(model, TOKENS, gram=True)
    by_place = {(one.role, one.layer, one.expert): one.name for one in linears(model)}
    for layer, x in enumerate(inputs_of(model, tmp_path)):
        gates = gates_of(model, layer, x)
        assert statistics[by_place["router", layer, None]].tokens == TOKENS.size
        for number, expert in enumerate(experts_of(model, layer)):
            own = x[gates[:, number] > 0]
            for role, seen in (("expert.gate", own), ("expert.up", own), ("expert.down", compute(expert, own)[0])):
                found = statistics[by_place[role, layer, number]]
                assert found.tokens == len(own)
                assert found.gram is not None
                scale = np.square(seen).mean()
                assert_allclose(found.gram, seen.T @ seen / len(seen), rtol=1e-4, atol=1e-5 * scale)


def test_statistics_of_experts_are_computed_once(home: Path, cache: Path) -> None:
    model = export("mixtral", home)
    first = collect(model, TOKENS)
    (file,) = cache.glob("*.safetensors")
    written = file.stat().st_mtime_ns
    again = collect(model, TOKENS)
    assert file.stat().st_mtime_ns == written
    for layer, found in first.experts.items():
        assert_allclose(again.experts[layer].saliency, found.saliency, rtol=0)


def test_dense_models_have_no_statistics_of_experts(home: Path) -> None:
    assert collect(export("llama", home), TOKENS).experts == {}


def starved(model: ir.Model) -> ir.Model:
    """A model in which two of five experts are always preferred to expert 1 of layer 2."""
    (router,) = (linear for linear in linears(model) if linear.role == "router" and linear.layer == 2)
    direction = router.matrix.numpy()[:1]
    router.replace(constant(np.array([[1], [0], [-1], [2], [-2]], np.float32) * direction))
    return model


def test_an_expert_that_no_token_is_given_to_has_zeros(home: Path) -> None:
    model = starved(export("mixtral", home))
    statistics = collect(model, TOKENS, gram=True)
    assert statistics.experts[2].counts[1] == 0
    assert statistics.experts[2].saliency[1] == 0
    assert np.isfinite(statistics.experts[2].saliency).all()
    (down,) = (one for one in linears(model) if (one.role, one.layer, one.expert) == ("expert.down", 2, 1))
    found = statistics[down.name]
    assert found.tokens == 0
    assert not found.second_moment.any()


@pytest.mark.parametrize("method", ["grid", "gptq", "autoround"])
def test_experts_are_quantized_whether_tokens_reach_them_or_not(method: Method, home: Path) -> None:
    model = calibrated(starved(export("mixtral", home)), tokens(12, 64))
    Quantize(block_size=32, method=method, steps=2)(model)
    for linear in linears(model):
        if linear.expert is not None:
            assert isinstance(linear.matrix, BlockQuantized)
            assert np.isfinite(linear.matrix.numpy()).all()


def test_activations_of_experts_are_measured_on_the_tokens_given_to_them(home: Path) -> None:
    model = calibrated(starved(export("mixtral", home)), tokens(4, 64))
    Quantize(block_size=32)(model)
    before = {linear.name: linear.matrix.numpy() for linear in linears(model)}
    AccuracyLevel(max_error=1e-4)(model)
    stated = {linear.role for linear in linears(model) if activations(linear.node)}
    assert {"expert.gate", "expert.up", "expert.down"} <= stated
    starving = [one for one in linears(model) if (one.role, one.layer, one.expert) == ("expert.down", 2, 1)]
    assert [activations(linear.node) for linear in starving] == [None]
    for linear in linears(model):
        assert_allclose(linear.matrix.numpy(), before[linear.name], rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scaling", [SmoothQuant(), Awq(block_size=32)])
def test_scales_of_what_experts_share_change_no_output(scaling: Pass, family: str, home: Path) -> None:
    expected = logits(export(family, home), TOKENS)
    model = scaling(calibrated(export(family, home), TOKENS)).model
    assert_allclose(logits(model, TOKENS), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_rotation_says_that_it_does_not_know_experts(home: Path) -> None:
    with pytest.raises(GraphError, match=r"layer 0 has no matrix product with role 'mlp.down': it cannot be rotated"):
        Rotate()(export("mixtral", home))


def test_a_mix_gives_the_experts_of_a_layer_one_width_and_leaves_routers(home: Path) -> None:
    model = calibrated(export("qwen2_moe", home), tokens(4, 64))
    Mix(max_bytes=total(sizes_of(model)).bytes // 5, block_size=32, method="nearest")(model)
    bits: dict[str, set[int]] = {}
    for linear in linears(model):
        name = f"{linear.layer} expert" if linear.expert is not None else linear.name
        if isinstance(linear.matrix, BlockQuantized):
            bits.setdefault(name, set()).add(linear.matrix.form.bits)
        else:
            assert linear.role in ROUTERS
    assert {len(found) for found in bits.values()} == {1}
    assert len(set().union(*bits.values())) > 1
    assert [node.op_type for node in LowerOrt()(model).model.graph].count("QMoE") == get_facts(model).layers


def test_the_experts_of_a_layer_that_matters_less_get_fewer_bits(home: Path) -> None:
    model = calibrated(export("mixtral", home), tokens(4, 64))
    for linear in linears(model):
        if linear.role == "expert.down":
            factor = np.float32(1 if linear.layer == 0 else 0.02)
            linear.replace(constant(linear.matrix.numpy() * factor))
    Mix(max_bytes=total(sizes_of(model)).bytes // 6, block_size=32, method="nearest")(model)
    nodes = [node for node in LowerOrt()(model).model.graph if node.op_type == "QMoE"]
    bits = [node.attributes.get_int("expert_weight_bits") for node in nodes]
    assert len(bits) == 4
    assert max(bits[1:]) < bits[0]
