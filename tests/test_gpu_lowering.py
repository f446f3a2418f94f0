"""tests: the dialect 'ort' for GPUs: run by the CPU provider wherever it has the operators, by structure elsewhere."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import parity
from cases import CASES
from edgewise import Runner
from edgewise.errors import LoweringError, OptionError
from edgewise.facts import Facts
from edgewise.graph import Roles, get_facts
from edgewise.lint import lint
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.steps import resolve
from edgewise.target import Numerics
from edgewise.tensors import constant, streamed
from edgewise.writer import write_model
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.w8a8 import W8A8
from edgewise_targets.ort.floats import DTYPES, Floats
from edgewise_targets.ort.lower import LowerOrt
from lowered import Lowered

PYCODER = Path(__file__).parents[1] / "examples" / "pycoder"
GPUS = ("cuda", "directml", "webgpu")

# float16 has 11 bits of significand: four layers of it, and a residual stream in it, are up to 0.5 % off here.
HALF = 1e-2


@dataclass(frozen=True)
class Lowering:
    """A case, lowered in some way."""

    model: ir.Model
    graph: ort.InferenceSession
    facts: Facts
    context: int
    oracle: parity.Oracle

    def session(self) -> Lowered:
        return Lowered(self.graph, self.facts, self.context)


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, LowerOrt], Lowering]:
    home = tmp_path_factory.getbasetemp()

    @cache
    def lowered(name: str, way: LowerOrt) -> Lowering:
        model = parity.export(name, home)
        facts = get_facts(model)
        way(model)
        path = tmp_path_factory.mktemp("lowered") / "model.onnx"
        write_model(model, path)
        return Lowering(model, parity.load(path), facts, CASES[name].context, parity.oracle(name, home))

    return lowered


DIRECTML = LowerOrt(head_norms="reshaped", rotary="before", packed=False)


@pytest.mark.parametrize("feeding", ["in chunks", "in a padded batch"])
@pytest.mark.parametrize("name", CASES)
def test_attention_in_the_form_of_directml_computes_what_transformers_does(
    name: str, feeding: str, lower: Callable[[str, LowerOrt], Lowering]
) -> None:
    lowering = lower(name, DIRECTML)
    logits = parity.FEEDINGS[feeding](lowering.session(), lowering.oracle.tokens)
    assert parity.difference(logits, lowering.oracle) <= parity.TOLERANCE


@pytest.mark.parametrize("feeding", ["in chunks", "in a padded batch"])
@pytest.mark.parametrize("name", CASES)
def test_float16_is_as_close_as_it_can_be(name: str, feeding: str, lower: Callable[[str, LowerOrt], Lowering]) -> None:
    lowering = lower(name, LowerOrt(floats="float16", head_norms="reshaped"))
    logits = parity.FEEDINGS[feeding](lowering.session(), lowering.oracle.tokens)
    # A token between two experts may be given to the other one: of most tokens the difference is small.
    difference = median_difference if lowering.facts.experts else parity.difference
    assert difference(logits, lowering.oracle) <= HALF


def median_difference(logits: Sequence[parity.Logits], oracle: parity.Oracle) -> float:
    """The median over tokens of the largest difference, as a share of the largest logit."""
    rows = zip(logits, oracle.logits, strict=False)
    tokens = np.concatenate([np.abs(ours - theirs[: len(ours)]).max(axis=-1) for ours, theirs in rows])
    return float(np.median(tokens)) / max(1.0, float(np.abs(oracle.logits).max()))


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama tied"])
def test_int4_in_float16_is_int4_in_float32(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same codes: what differs is the scales' last bits, and activations."""
    found = []
    for floats in ("float32", "float16"):
        model = parity.export(name, tmp_path_factory.getbasetemp())
        facts = get_facts(model)
        Quantize(block_size=32, symmetric=True)(model)
        LowerOrt(accuracy_level=0, floats=floats, head_norms="reshaped")(model)
        path = tmp_path_factory.mktemp("int4") / "model.onnx"
        write_model(model, path)
        session = Lowered(parity.load(path), facts, CASES[name].context)
        found.append(parity.in_chunks(session, parity.oracle(name, tmp_path_factory.getbasetemp()).tokens)[0])
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=HALF * np.abs(found[0]).max())


@pytest.mark.parametrize("floats", ["float16", "bfloat16"])
@pytest.mark.parametrize("head_norms", ["reshaped", "inside"])
def test_floats_are_of_one_type_but_for_what_comes_out(
    floats: Floats, head_norms: Literal["reshaped", "inside"], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = parity.export("qwen3 yarn", tmp_path_factory.getbasetemp())
    LowerOrt(floats=floats, head_norms=head_norms)(model)
    constants = {value.dtype for value in model.graph.initializers.values()}
    assert constants == {DTYPES[floats], ir.DataType.INT64}
    outputs = {value.name: value.dtype for value in model.graph.outputs}
    assert outputs.pop("logits") == ir.DataType.FLOAT
    assert set(outputs.values()) == {DTYPES[floats]}
    assert {a.cache for a in get_facts(model).attention} == {floats}


@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize("name", ["llama", "llama tied", "qwen2", "qwen3", "olmo2", "smollm3"])
def test_what_is_lowered_for_a_gpu_is_fit_for_it(
    name: str, target: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    device = registry().get_target(target)
    model = parity.export(name, tmp_path_factory.getbasetemp())
    model.meta["edgewise"] = BuildContext(target=device, context=64)
    for step in (*resolve(device.recipe, where="recipe"), *resolve(device.lowering, where="lowering")):
        step(model)
    windows = target == "directml" and any(a.window for a in get_facts(model).attention)
    assert [finding.rule for finding in lint(model, device)] == ["attention"] * windows


@pytest.mark.parametrize(
    "way", [DIRECTML, LowerOrt(floats="float16", head_norms="inside"), LowerOrt(floats="bfloat16")]
)
@pytest.mark.parametrize("name", ["gemma3", "llama tied", "qwen3", "mixtral"])
def test_lowering_twice_changes_nothing(name: str, way: LowerOrt, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = parity.export(name, tmp_path_factory.getbasetemp())
    for step in way.steps():
        step(model)
        assert not step(model).modified, step.name
    assert not way(model).modified


def test_norms_of_heads_are_inputs_of_attention_whose_queries_nobody_scales(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = parity.export("qwen3", tmp_path_factory.getbasetemp())
    roles = Roles.of(model)
    weights = {part: roles.all(f"attention.{part}.norm", 1)[1].inputs[1] for part in "qk"}
    projected = weight_of(model, "attention.q")
    LowerOrt(head_norms="inside", packed=False)(model)
    attention = Roles.of(model).one("attention", 1)
    assert list(attention.inputs[14:16]) == [weights["q"], weights["k"]]
    assert attention.attributes["qk_norm_epsilon"].as_float() == pytest.approx(3e-4)
    assert attention.attributes["scale"].as_float() == pytest.approx(32**-0.5)
    np.testing.assert_array_equal(weight_of(model, "attention.q"), projected)
    assert not Roles.of(model).all("attention.q.norm", 1)


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "qwen3_moe"])
def test_attention_that_norms_heads_computes_what_transformers_does(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The processor has no such kernel: here its norms are written out in front of it, from what it is told."""
    home = tmp_path_factory.getbasetemp()
    model = parity.export(name, home)
    facts = get_facts(model)
    LowerOrt(head_norms="inside", packed=False)(model)
    for index, spec in enumerate(facts.attention):
        attention = Roles.of(model).one("attention", index)
        epsilon = attention.attributes.pop("qk_norm_epsilon").as_float()
        for place, heads in ((0, spec.heads), (1, spec.kv_heads)):
            attributes = {"num_branches": heads, "epsilon": epsilon}
            inputs = [attention.inputs[place], attention.inputs[14 + place]]
            norm = ir.node("BranchwiseRMSNorm", inputs, attributes=attributes, domain="com.microsoft")
            attention.prepend(norm)
            attention.replace_input_with(place, norm.outputs[0])
        attention.resize_inputs(9)
    write_model(model, tmp_path / "model.onnx")
    session = Lowered(parity.load(tmp_path / "model.onnx"), facts, CASES[name].context)
    oracle = parity.oracle(name, home)
    assert parity.difference(parity.in_chunks(session, oracle.tokens), oracle) <= parity.TOLERANCE


def test_the_start_of_the_logits_that_are_kept_is_computed_of_shapes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ONNX Runtime computes that on the processor: a copy from the GPU to it would end the capture of a CUDA graph."""
    model = parity.export("llama", tmp_path_factory.getbasetemp())
    LowerOrt()(model)
    (cut,) = {node.inputs[1] for node in model.graph if node.op_type == "Slice"}
    behind, todo = set(), [cut]
    while todo:
        value = todo.pop()
        if value is not None and (producer := value.producer()):
            behind.add(producer.op_type)
            todo += [] if producer.op_type == "Shape" else producer.inputs
    assert behind == {"Sub", "Add", "Shape"}


def test_a_weight_that_float16_cannot_hold_is_refused_when_it_is_written(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = parity.export("llama", tmp_path_factory.getbasetemp())
    norm = Roles.of(model).one("norm").inputs[1]
    assert norm
    norm.const_value = constant(np.full(64, 7e4, np.float32), name="model.norm.weight")
    LowerOrt(floats="float16")(model)
    with pytest.raises(LoweringError, match=r"'model.norm.weight' holds 7e\+04, .* ends at 65504; .* 'bfloat16'"):
        write_model(model, tmp_path_factory.mktemp("large") / "model.onnx")


def test_norms_cannot_be_inside_of_attention_that_comes_after_the_rotation() -> None:
    with pytest.raises(OptionError, match="head_norms: they cannot be inside of attention where rotary is before"):
        LowerOrt(head_norms="inside", rotary="before")


def test_integer_products_are_refused_in_float16(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = parity.export("llama", tmp_path_factory.getbasetemp())
    W8A8()(model)
    with pytest.raises(LoweringError, match="multiplies int8 activations, which needs floats = 'float32'"):
        LowerOrt(floats="float16")(model)


def test_a_bundle_in_float16_runs(tmp_path: Path) -> None:
    """On the processor, through the runner: half of the cache, and the tokens of the same weights in float32."""
    cpu = registry().get_target("cpu-x64")
    recipe = Recipe(())
    texts, caches = [], []
    for floats in ("float32", "float16"):
        step = RecipeStep("lower-ort", {"floats": floats})
        target = dataclasses.replace(cpu, lowering=(step,), numerics=Numerics())
        bundle = build(PYCODER, target=target, recipe=recipe, output=tmp_path / f"{floats}.edge", load_check=False)
        assert bundle.manifest.cache.dtype == floats
        caches.append(bundle.manifest.language_model.cache_bytes(100))
        with Runner.open(bundle.path) as runner:
            texts.append(runner.generate("def read_json(", max_tokens=24).text)
    assert caches[0] == 2 * caches[1]
    assert texts[0] == texts[1]


def weight_of(model: ir.Model, role: str) -> np.ndarray:
    value = Roles.of(model).one(role, 1).inputs[1]
    assert value
    return streamed(value.const_value).numpy()


def test_a_clone_of_a_graph_that_is_lowered_stays_as_it_was(home: Path) -> None:
    model = parity.export("llama", home)
    other = model.clone()
    LowerOrt(floats="float16")(model)
    values = [*other.graph.inputs, *other.graph.initializers.values()]
    assert {value.dtype for value in values if "past" in str(value.name) or "weight" in str(value.name)} == {
        ir.DataType.FLOAT
    }
