"""tests: pruned models: smaller as they say, the same where nothing was lost, and close where something was."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import tiny
from canonical import calibrated, graph, logits, tokens
from cases import CASES
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import EdgewiseError, GraphError, OptionError, RecipeError
from edgewise.graph import Linear, Roles, get_facts, linears
from edgewise.passes import BuildContext, Pass
from edgewise.pipeline import build
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.runner import Runner
from edgewise.tensors import constant
from edgewise_plugins.prune.budget import Prune
from edgewise_plugins.prune.depth import PruneLayers, remove_layers, without
from edgewise_plugins.prune.heads import PruneHeads
from edgewise_plugins.prune.hidden import PruneHidden
from edgewise_plugins.prune.width import PruneWidth
from edgewise_plugins.quantize import Quantize

TEXT, FRESH = tokens(48, 64), tokens(8, 48, seed=9)
DENSE = ["llama", "llama tied", "llama biased", "phi3", "gemma2", "olmo2"]

pytestmark = pytest.mark.usefixtures("cache")


def made(case: str, folder: Path) -> ir.Model:
    return calibrated(graph(tiny.checkpoint(CASES[case].family, folder, **CASES[case].overrides)), TEXT)


def by_role(model: ir.Model, role: str) -> list[Linear]:
    return [linear for linear in linears(model) if linear.role == role]


def distance(model: ir.Model, expected: np.ndarray) -> float:
    return float(np.square(logits(model, FRESH) - expected).mean())


def zero(linear: Linear, columns: np.ndarray) -> None:
    weights = linear.matrix.numpy().copy()
    weights[:, columns] = 0
    linear.replace(constant(weights))


@pytest.mark.parametrize("case", DENSE)
def test_neurons_are_removed_and_made_up_for(case: str, tmp_path: Path) -> None:
    expected = logits(made(case, tmp_path), FRESH)
    distances = {}
    for refit in (True, False):
        model = made(case, tmp_path)
        PruneWidth(keep=0.5, multiple=16, refit=refit)(model)
        assert {linear.matrix.dims for linear in by_role(model, "mlp.down")} == {(64, 48)}
        assert {linear.matrix.dims for linear in by_role(model, "mlp.up")} == {(48, 64)}
        distances[refit] = distance(model, expected)
    assert distances[True] < distances[False]


@pytest.mark.parametrize("case", ["llama", "llama biased", "gemma2"])
def test_neurons_that_nothing_reads_change_nothing_when_they_go(case: str, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    for down in by_role(model, "mlp.down"):
        zero(down, np.arange(1, 96, 2))
    expected = logits(model, FRESH)
    PruneWidth(keep=0.5, multiple=1, refit=False)(model)
    assert {linear.matrix.dims[1] for linear in by_role(model, "mlp.down")} == {48}
    np.testing.assert_allclose(logits(model, FRESH), expected, atol=1e-5)


@pytest.mark.parametrize("case", ["llama", "llama biased", "qwen3", "gemma2"])
def test_heads_go_in_groups_and_the_cache_is_smaller(case: str, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    before = get_facts(model).attention[0]
    expected = logits(model, FRESH)
    PruneHeads(keep=0.5)(model)
    after = get_facts(model).attention
    assert {(a.heads, a.kv_heads) for a in after} == {(before.heads // 2, before.kv_heads // 2)}
    shapes = {value.name: list(value.shape or ()) for value in [*model.graph.inputs, *model.graph.outputs]}
    assert shapes["past_key_values.0.key"][1] == shapes["present.0.key"][1] == before.kv_heads // 2
    assert distance(model, expected) < np.square(expected - expected.mean(axis=1, keepdims=True)).mean()


def test_heads_that_nothing_reads_change_nothing_when_they_go(tmp_path: Path) -> None:
    model = made("qwen3", tmp_path)
    a = get_facts(model).attention[0]
    for out in by_role(model, "attention.o"):
        zero(out, np.arange(a.heads // a.kv_heads * a.head_dim))
    expected = logits(model, FRESH)
    PruneHeads(keep=0.5)(model)
    np.testing.assert_allclose(logits(model, FRESH), expected, atol=1e-4)


@pytest.mark.parametrize("case", ["llama", "llama biased", "gemma2", "olmo2", "smollm3", "mixtral"])
def test_a_layer_that_is_left_out_is_one_that_adds_nothing(case: str, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    silent = model.clone()
    for name, tensor in without(silent, 1).items():
        silent.graph.initializers[name].const_value = tensor
    expected = logits(silent, FRESH)
    remove_layers(model, [1])
    assert get_facts(model).layers == 3
    assert Roles.of(model).layers() == [0, 1, 2]
    assert [value.name for value in model.graph.inputs if str(value.name).endswith("key")] == [
        f"past_key_values.{i}.key" for i in range(3)
    ]
    np.testing.assert_allclose(logits(model, FRESH), expected, atol=1e-5)


@pytest.mark.parametrize("contiguous", [True, False])
def test_the_layers_that_go_are_those_that_cost_least(contiguous: bool, tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    for number in (1, 2):
        for name, tensor in without(model, number).items():
            model.graph.initializers[name].const_value = tensor
    expected = logits(model, FRESH)
    PruneLayers(keep=2, contiguous=contiguous)(model)
    assert get_facts(model).layers == 2
    np.testing.assert_allclose(logits(model, FRESH), expected, atol=1e-5)


CUTS: tuple[tuple[str, dict[str, object]], ...] = (
    ("prune-layers", {"keep": 3}),
    ("prune-heads", {}),
    ("prune-width", {"keep": 0.5}),
    ("prune-hidden", {"keep": 0.75, "multiple": 32}),
    ("prune-hidden", {"keep": 0.75, "multiple": 32, "method": "slice"}),
)


@pytest.mark.parametrize(
    "cuts", [CUTS[:4], *(pytest.param((cut,), marks=pytest.mark.slow) for cut in CUTS[:4]), CUTS[4:]]
)
def test_a_pruned_and_quantized_bundle_runs(
    cuts: Sequence[tuple[str, dict[str, object]]], pycoder: Path, tmp_path: Path
) -> None:
    recipe = Recipe((*(RecipeStep(*cut) for cut in cuts), RecipeStep("quantize", {"bits": 4})))
    text = CalibrationText(pycoder / "calibration.txt", tokens=2048, length=256)
    bundle = build(pycoder, output=tmp_path / "small.edge", recipe=recipe, calibration=text, load_check=False)
    with Runner.open(bundle.path) as runner:
        assert runner.generate("def add(a, b):", max_tokens=8).tokens
    config, facts = json.loads((bundle.path / "config.json").read_text("utf-8")), bundle.manifest.language_model
    sizes = (config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"])
    assert sizes == (facts.layers, facts.attention[0].heads, facts.attention[0].kv_heads)
    assert (config["hidden_size"], config["head_dim"]) == (facts.hidden_size, facts.attention[0].head_dim)
    genai = json.loads((bundle.path / "genai_config.json").read_text("utf-8"))["model"]["decoder"]
    assert (genai["num_hidden_layers"], genai["num_key_value_heads"]) == (sizes[0], sizes[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PruneWidth(keep=0.0), "keep: 0.0 is not above 0"),
        (lambda: PruneWidth(multiple=0), "multiple: 0 is not 1 or more"),
        (lambda: PruneHeads(keep=1.5), "keep: 1.5 is not above 0"),
        (lambda: PruneHidden(keep=-0.5), "keep: -0.5 is not above 0"),
        (lambda: PruneHidden(multiple=0), "multiple: 0 is not 1 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(OptionError, match=message):
        make()


@pytest.mark.parametrize("step", [PruneWidth(), PruneHeads(), PruneHidden(), PruneLayers(keep=2), Prune(keep=0.9)])
def test_pruning_needs_a_text(step: Pass, tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    model.meta["edgewise"] = BuildContext()
    with pytest.raises(RecipeError, match=f"pass '{step.name}' needs a calibration text: --calibration-text FILE"):
        step(model)


@pytest.mark.parametrize(
    ("case", "step", "message"),
    [
        ("mixtral", PruneWidth(), "no layer has an MLP: those of a mixture of experts"),
        ("olmo2", PruneHeads(), "layer 0: a norm over all heads together"),
        (
            "llama",
            PruneHeads(keep=0.4),
            "keep: 0.4 of the 2 key-value heads of layer 0 is less than one",
        ),
        ("phi3", PruneHeads(), "each layer has one key-value head: there is none to remove"),
        ("llama", PruneLayers(keep=5), "keep: 5 is not from 1 to 4, the layers of the model"),
        ("llama", PruneLayers(keep=0), "keep: 0 is not from 1 to 4"),
    ],
)
def test_what_cannot_be_pruned_is_one_line(case: str, step: Pass, message: str, tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=message):
        step(made(case, tmp_path))


@pytest.mark.parametrize("step", [PruneWidth(), PruneHeads(), PruneHidden(), Prune(keep=0.9)])
def test_a_text_with_fewer_tokens_than_there_are_unknowns_is_refused(step: Pass, tmp_path: Path) -> None:
    model = calibrated(made("llama", tmp_path), tokens(1, 48))
    with pytest.raises(EdgewiseError, match=r"fits matrices of \d+ inputs anew, for which 48 tokens are too few"):
        step(model)


@pytest.mark.parametrize("step", [PruneWidth(), PruneHeads(), PruneHidden()])
def test_pruning_comes_before_quantizing(step: Pass, tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    Quantize(bits=8, block_size=32)(model)
    with pytest.raises(GraphError, match=r"is quantized already .*comes before"):
        step(model)
