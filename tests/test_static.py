"""tests: graphs of fixed lengths compute what transformers computes, wherever a prompt ends and a window slides."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import parity
import tiny
from cases import CASES, Case
from edgewise.checkpoint import Checkpoint
from edgewise.errors import LoweringError
from edgewise.facts import Facts
from edgewise.graph import Roles, get_facts, set_facts
from edgewise.hidden import add_hidden_states
from edgewise.passes import BuildContext
from edgewise.writer import write_model
from edgewise_exporters.decoder import Decoder
from edgewise_exporters.decoder.families import FAMILIES
from edgewise_plugins.quantize import Quantize
from edgewise_targets.static.lower import LowerStatic
from edgewise_targets.static.operators import OPERATORS
from static_graphs import Static

WIDTH = 8
PROMPTS = (1, 2, WIDTH, WIDTH + 1, WIDTH + 2, 3 * WIDTH + 1)  # none, part, all of a piece in the graph of prompts; more
DENSE = [name for name, case in CASES.items() if FAMILIES[case.family].mixture is None]


@dataclass(frozen=True)
class Lowering:
    """A case, lowered in float32: one token at a time, and for prompts."""

    case: Case
    oracle: parity.Oracle
    facts: Facts
    models: dict[int, ir.Model]  # by width
    graphs: dict[int, ort.InferenceSession]

    def session(self) -> Static:
        return Static(self.graphs[WIDTH], self.graphs[1], self.facts)


def lowered(model: ir.Model, width: int | None, context: int | None = 64) -> ir.Model:
    model.meta["edgewise"] = BuildContext(context=context, width=width)
    return LowerStatic()(model).model


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lowering]:
    def lower(name: str) -> Lowering:
        home, folder, case = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("static"), CASES[name]
        models, graphs = {}, {}
        for width in (1, WIDTH):
            models[width] = lowered(parity.export(name, home), width, case.context)
            write_model(models[width], folder / f"{width}.onnx")
            graphs[width] = parity.load(folder / f"{width}.onnx")
        return Lowering(case, parity.oracle(name, home), get_facts(models[1]), models, graphs)

    return lower


@pytest.fixture(scope="module", params=DENSE)
def lowering(request: pytest.FixtureRequest, lower: Callable[[str], Lowering]) -> Lowering:
    return lower(request.param)


@pytest.fixture
def llama(tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    return parity.export("llama", tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_logits_are_those_of_transformers_wherever_a_prompt_ends(lowering: Lowering, prompt: int) -> None:
    session, tokens = lowering.session(), lowering.oracle.tokens[0]
    for stop in range(prompt, prompt + 4):
        logits = session([tokens[:stop] if stop == prompt else tokens[stop - 1 : stop]])[0][-1]
        expected = lowering.oracle.logits[0, stop - 1]
        largest = max(1.0, float(np.abs(lowering.oracle.logits).max()))
        assert np.abs(logits - expected).max() <= parity.TOLERANCE * largest


def test_token_by_token_the_whole_context_is_that_of_transformers(lowering: Lowering) -> None:
    logits = parity.token_by_token(lowering.session(), lowering.oracle.tokens)
    assert parity.difference(logits, lowering.oracle) <= parity.TOLERANCE


def test_only_operators_of_the_dialect_are_left_and_every_shape_is_fixed(lowering: Lowering) -> None:
    for model in lowering.models.values():
        assert all(node.op_type in OPERATORS[node.domain] for node in model.graph)
        for value in (*model.graph.inputs, *model.graph.outputs):
            assert value.shape is not None
            assert value.shape.is_static()


def test_lowering_twice_changes_nothing(lowering: Lowering) -> None:
    for model in lowering.models.values():
        before = ir.to_proto(model).SerializeToString(deterministic=True)
        assert not LowerStatic()(model).modified
        assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_graph_of_prompts_gives_keys_and_values_and_computes_nothing_else(lowering: Lowering) -> None:
    model, last = lowering.models[WIDTH], lowering.facts.layers - 1
    assert {str(value.name).split(".")[0] for value in model.graph.outputs} == {"present"}
    roles = Roles.of(model)
    for name in ("attention.q", "attention.o", "mlp.down"):
        assert roles.maybe(name, last - 1)
        assert not roles.maybe(name, last)
    assert not roles.maybe("lm_head")
    assert "lm_head.weight" not in model.graph.initializers


def test_rotary_tables_have_a_row_for_each_position_and_no_session_binds_others(lowering: Lowering) -> None:
    for name in lowering.facts.rotary:
        for kind in ("cos", "sin"):
            table = lowering.models[1].graph.initializers[f"rotary.{name}.{kind}"]
            assert table.shape == ir.Shape((lowering.case.context, lowering.facts.rotary[name].dim // 2))
            assert not table.is_graph_input()


def test_a_context_may_be_shorter_than_a_piece_of_a_prompt(
    tmp_path: Path, llama: ir.Model, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graphs = {}
    for width, model in ((1, llama.clone()), (32, llama)):
        write_model(lowered(model, width, context=12), tmp_path / f"{width}.onnx")
        graphs[width] = parity.load(tmp_path / f"{width}.onnx")
    expected = parity.oracle("llama", tmp_path_factory.getbasetemp())
    logits = Static(graphs[32], graphs[1], get_facts(llama))([expected.tokens[0, :12]])[0][-1]
    assert np.abs(logits - expected.logits[0, 11]).max() <= parity.TOLERANCE * np.abs(expected.logits).max()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_products_compute_what_their_dequantized_weights_compute(
    bits: int, symmetric: bool, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graphs = {}
    for width in (None, 1, WIDTH):
        canonical = parity.export("llama tied", tmp_path_factory.getbasetemp())
        model = Quantize(bits=bits, block_size=32, symmetric=symmetric)(canonical).model  # type: ignore[arg-type]
        model = lowered(model, width) if width else model
        write_model(model, tmp_path / f"{width}.onnx")
        graphs[width] = parity.load(tmp_path / f"{width}.onnx")
        facts = get_facts(model)
    tokens = parity.oracle("llama tied", tmp_path_factory.getbasetemp()).tokens[0, :20]
    expected = parity.Canonical(graphs[None], facts, 64)([tokens])[0]
    session = Static(graphs[WIDTH], graphs[1], facts)
    logits = [session([tokens[:19]])[0][0], session([tokens[19:]])[0][0]]
    np.testing.assert_allclose(logits, expected[18:], rtol=0, atol=parity.TOLERANCE * np.abs(expected).max())


def test_a_mixture_of_experts_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = parity.export("qwen3_moe mixed", tmp_path_factory.getbasetemp())
    with pytest.raises(LoweringError, match="layers 1 have a mixture of experts"):
        lowered(model, 1)


def test_a_graph_whose_lengths_nobody_says_is_refused(llama: ir.Model) -> None:
    with pytest.raises(LoweringError, match=r"states none: \[needs.static\] prefill = 128"):
        lowered(llama, None)


def test_columns_that_are_no_whole_blocks_are_refused(tmp_path: Path) -> None:
    checkpoint = tiny.checkpoint("llama", tmp_path, intermediate_size=80)
    model = Quantize(block_size=32)(Decoder().export(Checkpoint.open(checkpoint))).model
    with pytest.raises(
        LoweringError, match=r"down_proj.weight': 80 columns are no whole blocks .* role = \"mlp.down\""
    ):
        lowered(model, 1)


def test_two_bits_are_refused(llama: ir.Model) -> None:
    with pytest.raises(LoweringError, match="int2, block 32, asymmetric is not multiplied on this accelerator"):
        lowered(Quantize(bits=2, block_size=32)(llama).model, 1)


def test_hidden_states_are_refused(llama: ir.Model) -> None:
    add_hidden_states(llama)
    with pytest.raises(LoweringError, match="no output 'hidden_states'"):
        lowered(llama, 1)


def test_a_cache_in_int8_is_refused(llama: ir.Model) -> None:
    facts = get_facts(llama)
    set_facts(llama, replace(facts, attention=tuple(replace(spec, cache="int8") for spec in facts.attention)))
    with pytest.raises(LoweringError, match="'cache' = 'int8'"):
        lowered(llama, 1)
