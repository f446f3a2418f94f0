"""tests: mixtures of experts: their names, both spellings of a checkpoint, and one operator for each in the dialect."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import safetensors.torch
from numpy.typing import NDArray

import parity
import tiny
from edgewise.bench.bandwidth import bytes_per_token
from edgewise.bundle.manifest import Manifest
from edgewise.checkpoint import Checkpoint
from edgewise.facts import Attention, Experts, Facts
from edgewise.graph import Linear, Roles, get_facts, linears, state_activations
from edgewise.integer import Int8Rows
from edgewise.options import parse, record
from edgewise.passes import BuildContext
from edgewise.prefill import prefill_graph
from edgewise.quantized import BlockQuantized, dequantize
from edgewise.tensors import storage, streamed
from edgewise.writer import write_model
from edgewise_exporters.decoder import Decoder
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import ROUTERS, Rule
from edgewise_targets.ort.interleave import interleave_quantized
from edgewise_targets.ort.lower import LowerOrt
from lowered import Lowered

NAMES = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe mixed"]

Floats = NDArray[np.float32]


def experts_of(model: ir.Model, part: str, layer: int) -> list[Linear]:
    return [linear for linear in linears(model) if linear.role == f"expert.{part}" and linear.layer == layer]


@pytest.mark.parametrize("name", NAMES)
def test_experts_are_linears_of_their_own_under_the_names_of_the_checkpoint(name: str, home: Path) -> None:
    model = parity.export(name, home)
    stored = Checkpoint.open(parity.oracle(name, home).checkpoint).tensors
    found = {linear.name for linear in linears(model)}
    assert found == {name for name, tensor in stored.items() if len(tensor.dims) == 2}
    for layer, mixture in enumerate(get_facts(model).experts):
        for part in ("gate", "up", "down"):
            numbers = [linear.expert for linear in experts_of(model, part, layer)]
            assert numbers == (list(range(mixture.count)) if mixture else [])


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe"])
def test_experts_that_are_stored_as_stacks_are_the_same_experts(family: str, home: Path, tmp_path: Path) -> None:
    checkpoint = parity.oracle(family, home).checkpoint
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    model = parity.reference(checkpoint)  # which has them as stacks
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    stacks = Decoder().export(Checkpoint.open(tmp_path))
    apart = {(linear.role, linear.layer, linear.expert): linear for linear in linears(parity.export(family, home))}
    for linear in linears(stacks):
        other = apart.pop((linear.role, linear.layer, linear.expert))
        np.testing.assert_array_equal(linear.matrix.numpy(), other.matrix.numpy())
    assert not apart


def logits(model: ir.Model, folder: Path, tokens: parity.Row = range(3, 40)) -> parity.Logits:
    """From a canonical or a lowered graph, in one piece."""
    path = folder / f"{model.graph.num_nodes()}.onnx"
    write_model(model, path)
    canonical = any(value.name == "position_ids" for value in model.graph.inputs)
    session = (parity.Canonical if canonical else Lowered)(parity.load(path), get_facts(model), 256)
    return session([tokens])[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [None, Quantize(), Quantize(bits=8, block_size=32, symmetric=True)])
def test_each_mixture_becomes_one_operator(form: Quantize | None, name: str, home: Path) -> None:
    model = parity.export(name, home)
    facts = get_facts(model)
    lowered = LowerOrt()(form(model).model if form else model).model
    kind = "QMoE" if form else "MoE"
    assert [node.op_type for node in lowered.graph].count(kind) == sum(map(bool, facts.experts))
    assert not any(Roles.of(lowered).all(f"expert.{part}", i) for part in ("gate", "down") for i in range(4))


def test_experts_in_formats_that_one_operator_does_not_take_stay_products(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def quantized() -> ir.Model:
        kept = Rule(weight="*layers.2*experts.0.w2*", keep=True)
        wide = Rule(role="expert.down", layers="3", bits=8)  # there is no operator of two widths for processors
        rules = (Rule(weight="*layers.1*experts.2.w1*", bits=8), kept, wide)
        return Quantize(block_size=32, rules=rules)(parity.export("mixtral", home)).model

    expected = logits(quantized(), tmp_path)
    with caplog.at_level(logging.WARNING):
        lowered = LowerOrt()(quantized()).model
    (message,) = caplog.messages
    assert message.startswith("layers 1, 2, 3: all experts are computed for every token")
    assert [node.op_type for node in lowered.graph].count("QMoE") == 1
    assert not LowerOrt()(lowered).modified
    found = logits(lowered, tmp_path)
    assert np.square(found - expected).mean() < 0.2**2 * np.square(expected).mean()


FORMATS = {
    "int4": Quantize(block_size=32),
    "int4, one block": Quantize(),
    "int4, symmetric": Quantize(block_size=64, symmetric=True),
    "int8": Quantize(bits=8, block_size=32),
    "int8, symmetric": Quantize(bits=8, block_size=32, symmetric=True),
    "int2": Quantize(bits=2, block_size=32),
    "int4, down in smaller blocks": Quantize(block_size=64, rules=(Rule(role="expert.down", block_size=32),)),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["mixtral", "olmoe"])  # gates that add up to 1, and probabilities among all
def test_the_operator_rounds_activations_to_int8_and_loses_nothing_else(
    name: str, form: str, home: Path, tmp_path: Path
) -> None:
    canonical = FORMATS[form](parity.export(name, home)).model
    mixture = get_facts(canonical).experts[0]
    weights = {part: [linear.matrix for linear in experts_of(canonical, part, 0)] for part in ("gate", "up", "down")}
    lowered = LowerOrt()(canonical).model
    node = Roles.of(lowered).one("expert.sum", 0)
    x, logits, y = run_until(lowered, node, tmp_path)
    assert mixture is not None
    gates = gates_of(logits.reshape(-1, mixture.count), mixture)
    block = node.attributes.get_int("block_size")
    expected = np.zeros_like(y.reshape(len(gates), -1))
    for number, (gate, up, down) in enumerate(zip(*(weights[part] for part in ("gate", "up", "down")), strict=True)):
        entering = int8(x.reshape(len(gates), -1), block)
        wide, other = entering @ gate.numpy().T, entering @ up.numpy().T
        product = wide / (1 + np.exp(-wide)) * other
        expected += gates[:, number, None] * (int8(product, block) @ down.numpy().T)
    tolerance = 0.02 if form == "int2" else 0.003  # 2-bit weights meet activations that are rounded in another way
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=0, atol=tolerance * np.abs(expected).max())


def gates_of(logits: Floats, mixture: Experts) -> Floats:
    """Of each expert, `[tokens, experts]`; 0 where it is not among the chosen."""
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    limit = np.sort(exact, axis=1)[:, -mixture.active, None]
    chosen = np.where(exact >= limit, exact, 0)
    gates: Floats = (chosen / chosen.sum(axis=1, keepdims=True) if mixture.normalized else chosen).astype(np.float32)
    return gates


def int8(x: Floats, block_size: int) -> Floats:
    blocks = x.reshape(len(x), -1, block_size)
    scales = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    rounded: Floats = (np.rint(blocks / scales) * scales).astype(np.float32)
    return rounded.reshape(x.shape)


def run_until(model: ir.Model, node: ir.Node, folder: Path) -> list[Floats]:
    """What enters a mixture that is one operator, its router's logits, and what leaves it."""
    values = [*node.inputs[:2], node.outputs[0]]
    for value in values:
        assert value is not None
        value.type = ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(value)
    write_model(model, folder / "model.onnx")
    session = Lowered(parity.load(folder / "model.onnx"), get_facts(model), 64)
    feeds = {"input_ids": np.arange(3, 40)[None], "attention_mask": np.ones((1, 37), np.int64)}
    past = {
        f"past_key_values.{index}.{part}": np.zeros((1, a.kv_heads, 0, a.head_dim), np.float32)
        for index, a in enumerate(session.facts.attention)
        for part in ("key", "value")
    }
    found: list[Floats] = session.graph.run([value.name for value in values if value], {**feeds, **past})
    return found


def test_activations_that_must_not_be_rounded_are_not(home: Path) -> None:
    model = FORMATS["int4"](parity.export("mixtral", home)).model
    state_activations(experts_of(model, "down", 1)[3].node, "float32")
    nodes = [node for node in LowerOrt()(model).model.graph if node.op_type == "QMoE"]
    assert [node.attributes.get_int("accuracy_level") for node in nodes] == [4, 0, 4, 4]


def test_any_rows_of_interleaved_matrices_are_those_rows(home: Path) -> None:
    model = FORMATS["int4"](parity.export("mixtral", home)).model
    gate, up = (experts_of(model, part, 0)[0].matrix for part in ("gate", "up"))
    assert isinstance(gate, BlockQuantized)
    assert isinstance(up, BlockQuantized)
    both = interleave_quantized(gate, up)
    expected = np.stack([gate.numpy(), up.numpy()], axis=1).reshape(both.dims)
    for start, stop in [(0, 128), (3, 4), (5, 10), (4, 9)]:
        found = dequantize(both.quantized(start, stop), both.form, both.dims[1])
        np.testing.assert_array_equal(found, expected[start:stop])


def test_routers_stay_as_they_are_unless_a_rule_says_otherwise(home: Path) -> None:
    def kinds(quantize: Quantize) -> dict[str, bool]:
        model = quantize(parity.export("qwen2_moe", home)).model
        return {linear.role: isinstance(linear.matrix, BlockQuantized) for linear in linears(model)}

    kept = {role for role, quantized in kinds(Quantize()).items() if not quantized}
    assert kept == {"router", "shared.router"}
    kept = {role for role, quantized in kinds(Quantize(rules=(Rule(role="router", bits=8),))).items() if not quantized}
    assert kept == {"shared.router"}


def test_facts_of_experts_come_back_from_a_record() -> None:
    attention = (Attention(heads=2, kv_heads=1, head_dim=16, scale=0.25),) * 3
    experts = (Experts(8, 2, normalized=True), None, Experts(6, 1, normalized=False))
    facts = Facts("x", 10, 32, 64, attention, experts=experts)
    assert parse(Facts, record(facts), what="facts") == facts
    assert facts.active_experts == 3 / 14
    assert replace(facts, experts=()).active_experts == 1


def test_a_token_reads_of_the_experts_those_that_it_is_given_to(pycoder_bundle: object) -> None:
    manifest = getattr(pycoder_bundle, "manifest", None)
    assert isinstance(manifest, Manifest)
    layers = manifest.language_model.layers
    sparse = replace(
        manifest,
        facts=replace(manifest.language_model, experts=(Experts(8, 2, normalized=True),) * layers),
        card={**manifest.card, "parts": {**manifest.card["parts"], "expert": {"after": 8_000}}},
    )
    dense, found = bytes_per_token(manifest, 0), bytes_per_token(sparse, 0)
    assert dense is not None
    assert found == dense + 2_000


def test_a_checkpoint_of_a_dense_layer_where_experts_are_expected_is_refused(home: Path) -> None:
    checkpoint = Checkpoint.open(parity.oracle("qwen3_moe mixed", home).checkpoint)
    config = {**checkpoint.config, "mlp_only_layers": []}
    with pytest.raises(Exception, match=r"tensor 'model.layers.3.mlp.gate.weight' is absent"):
        Decoder().export(replace(checkpoint, config=config))


def test_weights_of_experts_are_read_when_they_are_asked_for(home: Path) -> None:
    model = LowerOrt()(Quantize()(parity.export("qwen3_moe", home)).model).model
    packed = [value for name, value in model.graph.initializers.items() if name.endswith("gate_up.packed")]
    assert len(packed) == tiny.COMMON["num_hidden_layers"]
    for value in packed:
        tensor = streamed(value.const_value)
        whole = np.concatenate([rows.reshape(-1) for rows in tensor.walk()])
        np.testing.assert_array_equal(whole, tensor.numpy().reshape(-1))
        assert max(rows.nbytes for rows in tensor.walk()) <= 1 << 22


@pytest.mark.parametrize("form", [None, Quantize(), Quantize(block_size=32)])
def test_two_graphs_of_the_same_experts_store_them_once(form: Quantize | None, home: Path) -> None:
    model = parity.export("mixtral", home)
    model = form(model).model if form else model
    graphs = [LowerOrt()(model.clone()).model for _ in range(2)]
    stored = [
        {name: storage(v.const_value) for name, v in graph.graph.initializers.items() if v.const_value is not None}
        for graph in graphs
    ]
    names = [name for name in stored[0] if ".experts." in name]
    assert len(names) == 4 * (6 if form else 2)
    for name in names:
        assert stored[0][name] == stored[1][name]


def test_a_graph_for_prompts_keeps_the_experts_of_the_one_that_decodes(home: Path) -> None:
    model = Quantize()(parity.export("qwen2_moe", home)).model
    matrices = {linear.name: linear.matrix for linear in linears(prefill_graph(model, {}, BuildContext()))}
    for linear in linears(model):
        after = matrices[linear.name]
        if linear.expert is not None or linear.role in (*ROUTERS, "embedding", "lm_head"):
            assert after is linear.matrix
        else:
            assert isinstance(after, BlockQuantized)
            assert isinstance(after.form, Int8Rows)
