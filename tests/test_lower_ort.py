"""tests: the lowered graph of every family computes what transformers computes, with ONNX Runtime's own operators."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import parity
from cases import CASES, Case
from edgewise.facts import Facts
from edgewise.graph import Roles, get_facts, layer, role
from edgewise.writer import write_model
from edgewise_targets.ort.lower import LowerOrt
from lowered import Lowered

# What is left of all families: to count tokens and to cut, element by element, and the fused ones.
OPERATORS = {
    "": "Add Cast ConstantOfShape Div Gather GatherElements Gelu Log MatMul Max Mul ReduceSum Reshape ScatterElements "
    "Shape Sigmoid SimplifiedLayerNormalization Slice Softmax Split Sub Tanh TopK Unsqueeze",
    "com.microsoft": "BranchwiseRMSNorm FusedMatMul GroupQueryAttention MoE QuickGelu SkipSimplifiedLayerNormalization",
}


@dataclass(frozen=True)
class Lowering:
    """A case, lowered in float32."""

    case: Case
    oracle: parity.Oracle
    model: ir.Model
    facts: Facts
    graph: ort.InferenceSession

    def session(self, *, keep: int | None = None) -> Lowered:
        return Lowered(self.graph, self.facts, self.case.context, keep=keep)


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lowering]:
    def lower(name: str) -> Lowering:
        home, path = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("lowered") / "model.onnx"
        model = LowerOrt()(parity.export(name, home)).model
        write_model(model, path)
        return Lowering(CASES[name], parity.oracle(name, home), model, get_facts(model), parity.load(path))

    return lower


@pytest.fixture(scope="module", params=CASES)
def lowering(request: pytest.FixtureRequest, lower: Callable[[str], Lowering]) -> Lowering:
    return lower(request.param)


@pytest.mark.parametrize("feeding", parity.FEEDINGS)
def test_logits_are_those_of_transformers(lowering: Lowering, feeding: str) -> None:
    logits = parity.FEEDINGS[feeding](lowering.session(), lowering.oracle.tokens)
    assert parity.difference(logits, lowering.oracle) <= parity.TOLERANCE


def test_greedy_tokens_are_those_of_transformers(lowering: Lowering) -> None:
    session = Lowered(lowering.graph, lowering.facts, lowering.case.decode_context, keep=1)
    assert parity.greedy(session, lowering.oracle.tokens[0, : parity.PROMPT]) == lowering.oracle.greedy


def test_only_operators_of_the_dialect_are_left(lowering: Lowering) -> None:
    for node in lowering.model.graph:
        assert node.op_type in OPERATORS[node.domain].split()


def test_lowering_twice_changes_nothing(lowering: Lowering) -> None:
    before = ir.to_proto(lowering.model).SerializeToString(deterministic=True)
    assert not LowerOrt()(lowering.model).modified
    assert ir.to_proto(lowering.model).SerializeToString(deterministic=True) == before


def test_every_weight_keeps_its_role_and_the_stream_its_names(lowering: Lowering) -> None:
    roles = Roles.of(lowering.model)
    values = {value.name for node in lowering.model.graph for value in node.outputs}
    for index in range(lowering.facts.layers):
        sparse = lowering.facts.experts and lowering.facts.experts[index]
        block = ("router", "expert.sum") if sparse else ("mlp.gate", "mlp.up", "mlp.down")
        for name in ("attention.qkv", "attention", "attention.o", *block):
            assert roles.one(name, index)
    assert {f"hidden.{index}" for index in range(lowering.facts.layers + 1)} <= values
    unnamed = [node.op_type for node in lowering.model.graph if role(node) is None]
    assert set(unnamed) <= {"ReduceSum", "Sub", "Shape", "Gather", "Cast", "Add", "Slice"}


@pytest.mark.parametrize("keep", [0, 1, 3, 1000])
def test_as_many_last_logits_are_given_as_are_asked_for(lowering: Lowering, keep: int) -> None:
    tokens = [lowering.oracle.tokens[0, :12]]
    whole, kept = lowering.session()(tokens)[0], lowering.session(keep=keep)(tokens)[0]
    assert len(kept) == min(keep or 12, 12)
    # Products of fewer rows add up in another order.
    np.testing.assert_allclose(kept, whole[-len(kept) :], rtol=0, atol=parity.TOLERANCE * np.abs(whole).max())


def test_a_cache_in_place_is_exactly_the_cache_that_grows(lowering: Lowering) -> None:
    session, outputs = lowering.session(), [output.name for output in lowering.graph.get_outputs()]
    past = {
        f"past_key_values.{index}.{part}": np.zeros((1, a.kv_heads, 0, a.head_dim), np.float32)
        for index, a in enumerate(lowering.facts.attention)
        for part in ("key", "value")
    }
    tables = {name: value.numpy() for name, value in session.tables.items()}
    seen = 0
    for piece in ([5, 6, 7, 8, 9, 10, 11, 12, 13], [14, 15, 16], [17]):
        seen += len(piece)
        feeds = {"input_ids": np.array([piece]), "attention_mask": np.ones((1, seen), np.int64)}
        results = dict(zip(outputs, lowering.graph.run(None, {**feeds, **tables, **past}), strict=True))
        np.testing.assert_array_equal(session([piece])[0], results["logits"][0])
        for name in past:
            past[name] = results[name.replace("past_key_values", "present")]
            buffer = session.cache[name.removeprefix("past_key_values.")].numpy()
            np.testing.assert_array_equal(buffer[:, :, :seen], past[name])


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_an_mlp_beside_the_attention_is_cut_as_well(
    keep: int, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    for path in (tmp_path / "canonical.onnx", tmp_path / "lowered.onnx"):
        model = parity.export("llama", tmp_path_factory.getbasetemp())
        roles, facts = Roles.of(model), get_facts(model)
        for index in range(facts.layers):  # the MLP reads what the attention reads, as in phi-2 or gpt-neox
            roles.one("mlp.norm", index).replace_input_with(0, roles.one("attention.norm", index).inputs[0])
        write_model(model if path.stem == "canonical" else LowerOrt()(model).model, path)
    tokens = [list(range(5, 17))]
    expected = parity.Canonical(parity.load(tmp_path / "canonical.onnx"), facts, 64)(tokens)[0]
    found = Lowered(parity.load(tmp_path / "lowered.onnx"), facts, 64, keep=keep)(tokens)[0]
    np.testing.assert_allclose(found, expected[-keep:], rtol=0, atol=parity.TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("name", ["gemma3", "llama tied", "olmo2", "qwen2"])
def test_each_step_done_twice_changes_nothing(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = parity.export(name, tmp_path_factory.getbasetemp())
    for step in LowerOrt().steps():
        step(model)
        assert not step(model).modified, step.name


def test_a_tied_table_of_floats_is_stored_once(lower: Callable[[str], Lowering]) -> None:
    facts, graph = (lowering := lower("llama tied")).facts, lowering.model.graph
    tables = [value.name for value in graph.initializers.values() if facts.vocab_size in (value.shape or ())]
    assert tables == ["model.embed_tokens.weight"]


def test_residual_additions_are_part_of_the_norms_after_them(lower: Callable[[str], Lowering]) -> None:
    added = [(role(node), layer(node)) for node in lower("qwen3").model.graph if node.op_type == "Add" and role(node)]
    assert added == []


def test_attention_multiplies_its_scores_by_one(lowering: Lowering) -> None:
    roles = Roles.of(lowering.model)
    scales = {roles.one("attention", index).attributes["scale"].as_float() for index in range(lowering.facts.layers)}
    assert scales == {1.0}


def test_layers_choose_their_own_window_and_table(lower: Callable[[str], Lowering]) -> None:
    roles = Roles.of(lower("gemma3").model)
    attention = [roles.one("attention", index) for index in range(4)]
    assert [node.attributes.get_int("local_window_size", -1) for node in attention] == [8, 8, -1, 8]
    tables = [str(value.name) for node in attention if (value := node.inputs[7])]
    assert tables == ["rotary.local.cos", "rotary.local.cos", "rotary.global.cos", "rotary.local.cos"]
