"""tests: the dialect of plain operators computes what transformers computes, over a cache that its caller keeps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import parity
from appended import Appended
from cases import CASES, Case
from edgewise.bundle.read import Bundle
from edgewise.errors import ContextOverflow, LoweringError
from edgewise.facts import Attention, Facts
from edgewise.graph import get_facts, set_facts
from edgewise.hidden import add_hidden_states
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.runtime.model import Model
from edgewise.writer import write_model
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import Rule
from edgewise_targets.primitive.lower import LowerPrimitive
from edgewise_targets.primitive.opset import OPERATORS
from fixed import FREE

WITHOUT_SINKS = [name for name, case in CASES.items() if case.family != "gpt_oss"]

FORMATS = {
    "int4, blocks wider than the matrix": Quantize(),
    "int4, block 32": Quantize(block_size=32),
    "int4, symmetric": Quantize(block_size=64, symmetric=True),
    "int4, v kept": Quantize(block_size=32, rules=(Rule(role="attention.v", keep=True),)),
    "int4, embedding kept": Quantize(block_size=32, rules=(Rule(role="embedding", keep=True),)),
    "int8": Quantize(bits=8, block_size=32),
    "int2": Quantize(bits=2, block_size=32),
}


@dataclass(frozen=True)
class Primitive:
    """A case in float32, lowered for sessions of one context."""

    case: Case
    oracle: parity.Oracle
    model: ir.Model
    facts: Facts
    graph: ort.InferenceSession

    def session(self, *, capacity: int = 0, keep: int = 0) -> Appended:
        return Appended(self.graph, self.facts, self.case.context, capacity=capacity, keep=keep)


Lower = Callable[..., Primitive]


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory) -> Lower:
    home = tmp_path_factory.getbasetemp()

    def lower(name: str, context: int | None = None, width: int | None = None) -> Primitive:
        path, model = tmp_path_factory.mktemp("primitive") / "model.onnx", parity.export(name, home)
        model = lowered(model, context or CASES[name].context, width)
        write_model(model, path)
        return Primitive(CASES[name], parity.oracle(name, home), model, get_facts(model), parity.load(path))

    return lower


def lowered(model: ir.Model, context: int, width: int | None = None) -> ir.Model:
    """As a build for such a target lowers it."""
    model.meta["edgewise"] = BuildContext(context=context, width=width)
    return LowerPrimitive()(model).model


@pytest.fixture(scope="module", params=WITHOUT_SINKS)
def primitive(request: pytest.FixtureRequest, lower: Lower) -> Primitive:
    return lower(request.param)


@pytest.mark.parametrize("feeding", parity.FEEDINGS)
def test_logits_are_those_of_transformers(primitive: Primitive, feeding: str) -> None:
    logits = parity.FEEDINGS[feeding](primitive.session(), primitive.oracle.tokens)
    assert parity.difference(logits, primitive.oracle) <= parity.TOLERANCE


@pytest.mark.parametrize("name", WITHOUT_SINKS)
def test_greedy_tokens_are_those_of_transformers(name: str, lower: Lower) -> None:
    context = CASES[name].decode_context
    found = lower(name, context)
    session = Appended(found.graph, found.facts, context, keep=1)
    assert parity.greedy(session, found.oracle.tokens[0, : parity.PROMPT]) == found.oracle.greedy


@pytest.mark.parametrize("spare", [0, 1, 100])
def test_slots_that_hold_nothing_change_nothing(primitive: Primitive, spare: int) -> None:
    tokens = primitive.oracle.tokens[:1]
    session = primitive.session(capacity=tokens.shape[1] + spare)
    assert parity.difference(parity.in_chunks(session, tokens), primitive.oracle) <= parity.TOLERANCE


@pytest.mark.parametrize("keep", [0, 1, 3, 1000])
def test_as_many_last_logits_are_given_as_are_asked_for(primitive: Primitive, keep: int) -> None:
    tokens = [primitive.oracle.tokens[0, :12]]
    whole, kept = primitive.session()(tokens)[0], primitive.session(keep=keep)(tokens)[0]
    assert len(kept) == min(keep or 12, 12)
    np.testing.assert_allclose(kept, whole[-len(kept) :], rtol=0, atol=parity.TOLERANCE * np.abs(whole).max())


def test_only_plain_operators_of_an_old_opset_are_left(primitive: Primitive) -> None:
    assert {(node.domain, node.op_type) for node in primitive.model.graph} <= {("", name) for name in OPERATORS[""]}
    assert primitive.model.graph.opset_imports == {"": 17}
    assert primitive.model.ir_version == 8


def test_no_input_has_a_default(primitive: Primitive) -> None:
    assert not {str(value.name) for value in primitive.model.graph.inputs} & set(primitive.model.graph.initializers)


def test_lowering_twice_changes_nothing(primitive: Primitive) -> None:
    before = ir.to_proto(primitive.model).SerializeToString(deterministic=True)
    assert not LowerPrimitive()(primitive.model).modified
    assert ir.to_proto(primitive.model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", ["gemma3", "llama biased", "mixtral", "qwen3"])
def test_each_step_done_twice_changes_nothing(name: str, home: Path) -> None:
    model = Quantize(block_size=32)(parity.export(name, home)).model
    for step in LowerPrimitive().steps():
        step(model)
        assert not step(model).modified, step.name


@pytest.mark.parametrize("name", ["gemma2", "llama dynamic", "phi3 longrope", "qwen3", "smollm3"])
def test_a_graph_that_decodes_is_the_free_one_a_token_at_a_time(name: str, lower: Lower) -> None:
    fixed = lower(name, width=1)
    assert {len(value.shape or ()) for value in fixed.model.graph.inputs} == {2, 4}
    assert all(isinstance(size, int) for value in fixed.model.graph.inputs for size in value.shape or ())
    found = parity.token_by_token(fixed.session(), fixed.oracle.tokens[:1])
    assert parity.difference(found, fixed.oracle) <= parity.TOLERANCE


@pytest.mark.parametrize("name", ["gemma2", "llama dynamic", "phi3 longrope", "qwen3", "smollm3"])
def test_a_graph_of_prompts_gives_the_keys_and_values_of_the_free_one(name: str, lower: Lower) -> None:
    free, fixed = lower(name), lower(name, width=16)
    assert "logits" not in [output.name for output in fixed.graph.get_outputs()]
    tokens = free.oracle.tokens[0, :16]
    expected, found = free.session(), fixed.session()
    expected([tokens])
    found([tokens])
    for key, values in expected.rows[0].cache.items():
        theirs = found.rows[0].cache[key]
        np.testing.assert_allclose(theirs, values, rtol=0, atol=parity.TOLERANCE * np.abs(values).max())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["gemma3", "llama biased", "llama tied", "phi3", "qwen2_moe"])
def test_quantized_weights_compute_what_they_stand_for(name: str, form: str, home: Path, tmp_path: Path) -> None:
    tokens, context = parity.oracle(name, home).tokens[:1], CASES[name].context
    model = FORMATS[form](parity.export(name, home)).model
    write_model(model, tmp_path / "canonical.onnx")
    canonical = parity.Canonical(parity.load(tmp_path / "canonical.onnx"), get_facts(model), context)
    (expected,) = parity.in_chunks(canonical, tokens)
    write_model(lowered(model, context), tmp_path / "primitive.onnx")
    session = Appended(parity.load(tmp_path / "primitive.onnx"), get_facts(model), context)
    (found,) = parity.in_chunks(session, tokens)
    np.testing.assert_allclose(found, expected, rtol=0, atol=parity.TOLERANCE * max(1, np.abs(expected).max()))
    assert any(node.op_type == "MatMulNBits" for node in model.graph)


def test_codes_of_a_tied_matrix_are_stored_once(home: Path, tmp_path: Path) -> None:
    plain, tied = (
        lowered(Quantize(block_size=32)(parity.export(name, home)).model, 64) for name in ("llama", "llama tied")
    )
    write_model(plain, tmp_path / "plain.onnx")
    write_model(tied, tmp_path / "tied.onnx")
    sizes = [(tmp_path / f"{name}.onnx_data").stat().st_size for name in ("plain", "tied")]
    facts = get_facts(tied)
    assert sizes[0] - sizes[1] >= facts.vocab_size * facts.hidden_size // 2


def test_hidden_states_are_given_for_every_position(home: Path, tmp_path: Path) -> None:
    model = parity.export("llama", home)
    add_hidden_states(model)
    write_model(lowered(model, 64), tmp_path / "model.onnx")
    names = [output.name for output in parity.load(tmp_path / "model.onnx").get_outputs()]
    assert {"logits", "hidden_states"} <= set(names)


def test_a_session_of_a_context_that_needs_other_rotary_tables_is_refused(home: Path, tmp_path: Path) -> None:
    checkpoint = parity.oracle("llama dynamic", home).checkpoint
    build(checkpoint, target=FREE, output=tmp_path / "dynamic.edge", context=120, recipe=Recipe(), load_check=False)
    bundle = Bundle.open(tmp_path / "dynamic.edge")
    assert Model.load(bundle.path, bundle.manifest).context == 120
    with pytest.raises(ContextOverflow, match="rotary tables of 120: build it with --context 100"):
        Model.load(bundle.path, bundle.manifest, context=100)


def test_neighbours_that_are_rotated_together_are_refused(home: Path) -> None:
    model = parity.export("llama", home)
    facts = get_facts(model)
    set_facts(model, replace(facts, rotary={"global": replace(facts.rotary["global"], interleaved=True)}))
    with pytest.raises(LoweringError, match=r"layer 0: .* \(interleaved\); the dialect 'primitive' rotates halves"):
        LowerPrimitive()(model)


def test_a_cache_in_int8_is_refused(home: Path) -> None:
    model = parity.export("llama", home)
    facts = get_facts(model)
    attention: tuple[Attention, ...] = tuple(replace(spec, cache="int8") for spec in facts.attention)
    set_facts(model, replace(facts, attention=attention))
    with pytest.raises(LoweringError, match="layer 0: attention with 'cache' = 'int8' is not something"):
        LowerPrimitive()(model)
