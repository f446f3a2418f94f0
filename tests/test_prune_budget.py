"""tests: pruning to a budget: what is chosen, that the budget is kept, and that it can be done again by its steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common
import pytest

import tiny
from canonical import calibrated, graph, logits, tokens
from cases import CASES
from edgewise.calibration.texts import CalibrationText
from edgewise.cli.main import execute
from edgewise.errors import EdgewiseError, OptionError
from edgewise.graph import get_facts, linears
from edgewise.passes import Pass, context_of
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.recipe import Recipe, read_steps
from edgewise.sizes import sizes_of, total
from edgewise.tensors import constant
from edgewise_plugins.prune.budget import Prune, search
from edgewise_plugins.prune.cuts import Axes, Cut
from edgewise_plugins.prune.price import Price
from edgewise_plugins.quantize import Quantize

TEXT, FRESH = tokens(12, 48), tokens(4, 48, seed=9)
AXES = Axes(layers=4, heads=(1.0, 0.5), width=(1.0, 0.75, 0.5, 0.25), multiple=16, damping=0.01)

pytestmark = pytest.mark.usefixtures("cache")


def made(case: str, folder: Path) -> ir.Model:
    return calibrated(graph(tiny.checkpoint(CASES[case].family, folder, **CASES[case].overrides)), TEXT)


def size(model: ir.Model) -> int:
    return total(sizes_of(model)).bytes


def facts_and_graph_agree(model: ir.Model) -> None:
    facts = get_facts(model)
    shapes = {str(value.name): list(value.shape or ()) for value in (*model.graph.inputs, *model.graph.outputs)}
    for number, a in enumerate(facts.attention):
        assert shapes[f"past_key_values.{number}.key"][1] == shapes[f"present.{number}.value"][1] == a.kv_heads
    assert f"past_key_values.{facts.layers}.key" not in shapes
    onnx_ir.passes.common.CheckerPass()(model)


def product(cut: Cut) -> Price:
    """A model all of whose weights are in layers, half in heads and half in neurons."""
    share = cut.layers / 4 * (cut.heads + cut.width) / 2
    return Price(round(1000 * share), share)


@pytest.mark.parametrize(
    ("worth", "goal", "expected"),
    [
        ((9, 9, 1), 700, Cut(4, 1.0, 0.25)),
        ((9, 1, 2), 700, Cut(4, 0.5, 0.75)),
        ((1, 9, 9), 700, Cut(2, 1.0, 1.0)),
        ((1, 1, 1), 1000, Cut(4)),
    ],
)
def test_what_costs_least_for_what_it_saves_goes(worth: Sequence[float], goal: int, expected: Cut) -> None:
    def measure(cuts: Sequence[Cut]) -> list[float]:
        return [sum(np.multiply(worth, (1 - c.layers / 4, 1 - c.heads, 1 - c.width))) for c in cuts]

    assert search(AXES, goal, product, measure) == expected


def test_what_was_cut_too_far_is_given_back() -> None:
    """A layer goes last, and makes room for neurons that went before it."""

    def measure(cuts: Sequence[Cut]) -> list[float]:
        return [(1 - c.width) * 0.1 + 2 * (4 - c.layers) ** 0.1 + 9 * (1 - c.heads) for c in cuts]

    assert search(AXES, 600, product, measure) == Cut(3, 1.0, 0.5)


def test_neurons_fill_the_room_that_is_left() -> None:
    filled = AXES.filled(Cut(4, 1.0, 0.25), lambda cut: product(cut).bytes <= 700)
    assert filled == Cut(4, 1.0, 0.390625)
    assert AXES.filled(Cut(3), lambda cut: True) == Cut(3)


@pytest.mark.parametrize("case", ["llama tied", "olmo2", "mixtral"])
def test_a_budget_is_kept_by_steps_that_can_be_repeated(case: str, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    before = size(model)
    step = Prune(keep=0.7, multiple=16)
    step(model)
    assert 0.5 * before < size(model) <= 0.7 * before
    facts_and_graph_agree(model)
    again = made(case, tmp_path)
    steps = context_of(model).done(step)
    assert steps != (step,)
    for each in steps:
        each(again)
    np.testing.assert_array_equal(logits(again, FRESH), logits(model, FRESH))


def test_what_nothing_depends_on_goes_first(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    for down in (linear for linear in linears(model) if linear.role == "mlp.down"):
        weights = down.matrix.numpy().copy()
        weights[:, 1::2] = 0
        down.replace(constant(weights))
    expected = logits(model, FRESH)
    step = Prune(keep=0.85, multiple=1)
    step(model)
    assert {each.name for each in context_of(model).done(step)} == {"prune-width"}
    np.testing.assert_allclose(logits(model, FRESH), expected, atol=1e-2)


def test_bytes_are_those_in_the_end_and_the_card_has_the_steps(pycoder: Path, tmp_path: Path) -> None:
    text = CalibrationText(pycoder / "calibration.txt", tokens=1024, length=256)
    rest = [{"pass": "quantize", "bits": 4}]
    whole = plan_build(pycoder, recipe=Recipe(read_steps(rest, where="a test"))).total.after
    goal = int(0.95 * whole)
    recipe = Recipe(read_steps([{"pass": "prune", "to_bytes": goal}, *rest], where="a test"))
    bundle = build(pycoder, output=tmp_path / "a.edge", recipe=recipe, calibration=text, load_check=False)
    assert 0.85 * whole < bundle.manifest.card["bytes"]["after"] <= goal
    names = [step["pass"] for step in bundle.manifest.recipe]
    assert "prune" not in names
    assert "quantize" in names
    assert f"`{names[0]}`: keep = " in (bundle.path / "README.md").read_text("utf-8")
    steps = Recipe(read_steps(bundle.manifest.recipe, where="a manifest"))
    again = build(pycoder, output=tmp_path / "b.edge", recipe=steps, calibration=text, load_check=False)
    weights = "onnx/model.onnx_data"
    assert again.manifest.files[weights] == bundle.manifest.files[weights]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prune(), "'prune' needs one budget: keep or to_bytes"),
        (lambda: Prune(keep=0.5, to_bytes=9), "'prune' needs one budget"),
        (lambda: Prune(keep=1.5), "keep: 1.5 is not above 0, and 1 at most"),
        (lambda: Prune(to_bytes=0), "to_bytes: 0 is not 1 or more"),
        (lambda: Prune(keep=0.5, multiple=0), "multiple: 0 is not 1 or more"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(OptionError, match=message):
        make()


@pytest.mark.parametrize("step", [Prune(to_bytes=100), Prune(keep=0.01)])
def test_a_budget_that_cannot_be_reached_names_the_smallest_that_can(step: Pass, tmp_path: Path) -> None:
    message = r"cannot be reached by pruning: the smallest is [\d,]+ of [\d,]+ bytes \(1 layer, 50% of its heads, "
    with pytest.raises(EdgewiseError, match=message):
        step(made("llama", tmp_path))


def test_pruning_to_a_budget_comes_before_quantizing(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    Quantize(bits=8, block_size=32)(model)
    with pytest.raises(EdgewiseError, match=r"is quantized already .*: prune comes before"):
        Prune(keep=0.5)(model)


def test_a_build_takes_a_budget_beside_the_targets_recipe(pycoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ["--calibration-text", str(pycoder / "calibration.txt"), "--calibration-tokens", "1024"]
    assert execute(["build", str(pycoder), "--keep", "0.8", "--dry-run", *text]) == 0
    assert (
        "plan for cpu-x64: prune(keep=0.8, to_bytes=None, multiple=128, damping=0.01), then " in capsys.readouterr().out
    )
    assert execute(["build", str(pycoder), "--to-bytes", "9", "--dry-run", *text]) == 1
    assert "to_bytes = 9 cannot be reached by pruning: the smallest is " in capsys.readouterr().err
    assert execute(["build", str(pycoder), "--keep", "0.8", "--dry-run"]) == 1
    assert "pass 'prune' needs a calibration text: --calibration-text FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "0.5", "--recipe", "x.toml"], "Give '--recipe' or '--keep'"),
        (["--to-bytes", "9", "--max-bytes", "9"], "Give '--to-bytes' or '--max-bytes': both bound the same bytes."),
    ],
)
def test_budgets_that_contradict_each_other_are_wrong_usage(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["build", "x", *options]) == 2
    assert message in capsys.readouterr().err
