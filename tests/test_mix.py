"""tests: mixed precision: budgets that are kept or refused."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import tiny
from canonical import calibrated, graph, tokens
from cases import CASES
from edgewise.cli.main import execute
from edgewise.errors import GraphError, OptionError, RecipeError
from edgewise.graph import linears
from edgewise.passes import BuildContext, context_of
from edgewise.planner.speed import Rates
from edgewise.planner.weights import Weights
from edgewise.planner.work import Product
from edgewise.quantized import BlockQuantized, Format
from edgewise.registry import registry
from edgewise.sizes import sizes_of, total
from edgewise_plugins.mix import EIGHT_BY_FOUR, Mix, items_of, product_ms
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.alone import Alone
from edgewise_plugins.quantize.blocks import in_blocks
from edgewise_plugins.quantize.nearest import nearest

TEXT = tokens(12, 64)


def made(folder: Path, case: str = "llama tied") -> ir.Model:
    return calibrated(graph(tiny.checkpoint(CASES[case].family, folder, **CASES[case].overrides)), TEXT)


def weights(model: ir.Model) -> int:
    return total(sizes_of(model)).bytes


def bits(model: ir.Model) -> dict[str, int]:
    matrices = {linear.name: linear.matrix for linear in linears(model)}
    return {name: matrix.form.bits for name, matrix in matrices.items() if isinstance(matrix, BlockQuantized)}


@pytest.mark.parametrize("share", [0.45, 0.6, 0.8])
def test_a_budget_of_bytes_is_kept_and_used(share: float, tmp_path: Path) -> None:
    model, eight, two = (made(tmp_path) for _ in range(3))
    Quantize(bits=8, block_size=32)(eight)
    Quantize(bits=2, block_size=32)(two)
    budget = int(weights(two) + share * (weights(eight) - weights(two)))
    Mix(max_bytes=budget, block_size=32, method="grid")(model)
    assert weights(model) <= budget
    # within the largest step that a matrix of this model can take
    assert weights(model) >= budget - 0.3 * weights(eight)
    assert len(set(bits(model).values())) > 1


def test_more_bytes_give_no_matrix_fewer_bits(tmp_path: Path) -> None:
    mixes = []
    for budget in (90_000, 110_000, 140_000):
        model = made(tmp_path)
        Mix(max_bytes=budget, block_size=32, method="nearest")(model)
        mixes.append(sum(bits(model).values()))
    assert mixes == sorted(mixes)


def test_a_budget_of_divergence_takes_more_bytes_the_tighter_it_is(tmp_path: Path) -> None:
    loose, tight = made(tmp_path), made(tmp_path)
    Mix(max_mean_kld=0.05, block_size=32, method="grid")(loose)
    Mix(max_mean_kld=0.005, block_size=32, method="grid")(tight)
    assert weights(loose) < weights(tight)


def test_time_is_a_budget_too(tmp_path: Path) -> None:
    fast, slow = made(tmp_path), made(tmp_path)
    Mix(max_ms=0.004, block_size=32, method="nearest")(fast)
    Mix(max_ms=0.005, block_size=32, method="nearest")(slow)
    assert sum(bits(fast).values()) < sum(bits(slow).values())


def test_time_is_that_of_the_target_where_its_profile_knows(tmp_path: Path) -> None:
    form, four = Format(8, 128, False), Format(4, 128, False)
    small, large = (registry().get_target(name) for name in ("raspberry-pi-5", "rtx-4090"))
    assert product_ms(small, form, 896, 4864) > 10 * product_ms(large, form, 896, 4864)
    assert product_ms(None, form, 896, 4864) == product_ms(registry().get_target("cpu-x64"), form, 896, 4864)
    for target in (small, large):
        rates = Rates(target.hardware, target.numerics)
        product = Product("mlp.down", 896, 4864, Weights("int4", 128, zero_points=True))
        assert product_ms(target, four, 896, 4864) == pytest.approx(1e3 * rates.product(product, 1))
    said = []
    for target in (small, large):
        model = made(tmp_path)
        model.meta["edgewise"] = replace(context_of(model), target=target)
        with pytest.raises(RecipeError, match=r"the smallest takes [\d,]+ bytes and (\S+) ms") as error:
            Mix(max_ms=1e-9, method="nearest")(model)
        said.append(float(str(error.value).split()[-2]))
    assert said[0] > 10 * said[1]


def test_bytes_and_time_bound_a_mix_together(tmp_path: Path) -> None:
    small, fast, both = (made(tmp_path) for _ in range(3))
    Mix(max_bytes=120_000, block_size=32, method="nearest")(small)
    Mix(max_ms=0.005, block_size=32, method="nearest")(fast)
    Mix(max_bytes=120_000, max_ms=0.005, block_size=32, method="nearest")(both)
    assert weights(both) <= min(120_000, weights(fast))
    assert sum(bits(both).values()) <= min(sum(bits(small).values()), sum(bits(fast).values()))


def test_the_command_line_takes_a_budget_instead_of_a_recipe(
    pycoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build", str(pycoder), "--dry-run", "--max-bytes", "3400000", "--max-mean-kld", "0.5"]
    assert execute([*command, "--calibration-text", str(pycoder / "calibration.txt")]) == 0
    assert "mix(max_bytes=3400000, max_ms=None, max_mean_kld=0.5, " in capsys.readouterr().out
    assert execute([*command, "--recipe", str(tmp_path / "any.toml")]) == 2
    assert "Give '--recipe' or '--max-bytes' and '--max-mean-kld'" in capsys.readouterr().err
    assert execute(command) == 1
    assert "pass 'mix' needs a calibration text: --calibration-text FILE" in capsys.readouterr().err


def test_matrices_that_are_packed_get_the_same_bits(tmp_path: Path) -> None:
    model = made(tmp_path, "phi3")
    Mix(max_bytes=100_000, block_size=32, method="nearest")(model)
    by_role = {(linear.layer, linear.role): bits(model)[linear.name] for linear in linears(model)}
    for layer in range(4):
        assert len({by_role[layer, f"attention.{part}"] for part in "qkv"}) == 1
        assert by_role[layer, "mlp.gate"] == by_role[layer, "mlp.up"]


def test_a_tied_matrix_is_one_item(tmp_path: Path) -> None:
    model = made(tmp_path)
    found = items_of(model)
    assert sum(len(group) for group in found.values()) == len({linear.name for linear in linears(model)})
    assert [linear.role for linear in found["model.embed_tokens.weight"]] == ["lm_head"]


def test_a_budget_that_cannot_be_met_is_told_the_closest_that_can(tmp_path: Path) -> None:
    model = made(tmp_path)
    with pytest.raises(
        RecipeError, match=r"no mix keeps to max_bytes = 1,000: the smallest takes [\d,]+ bytes"
    ) as caught:
        Mix(max_bytes=1000, block_size=32)(model)
    smallest = int(re.sub(r"\D", "", str(caught.value).split("takes")[1].split("bytes")[0]))
    Mix(max_bytes=smallest, block_size=32, method="nearest")(model)
    assert weights(model) == smallest


def test_budgets_that_contradict_each_other_say_what_each_would_take(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"no mix keeps to max_bytes = 90,000 and max_mean_kld = 0.1: the closest that fits has about [\d.]+; "
        r"one that keeps to it takes [\d,]+ bytes and [\d.]+ ms",
    ):
        Mix(max_bytes=90_000, max_mean_kld=0.1, block_size=32)(made(tmp_path))


def test_a_plan_measures_nothing_and_keeps_to_the_bytes(tmp_path: Path) -> None:
    model = made(tmp_path)
    calibration = context_of(model).calibration
    assert calibration is not None
    model.meta["edgewise"] = BuildContext(calibration=calibration, dry=True)
    Mix(max_bytes=110_000, block_size=32)(model)
    assert not calibration.used
    assert weights(model) <= 110_000


def test_the_same_text_gives_the_same_mix(tmp_path: Path) -> None:
    models = [made(tmp_path) for _ in range(2)]
    for model in models:
        Mix(max_bytes=110_000, block_size=32, method="grid")(model)
    assert bits(models[0]) == bits(models[1])


def test_a_mix_without_a_budget_or_with_none_that_can_be_is_refused() -> None:
    with pytest.raises(OptionError, match="give one of max_bytes, max_ms, max_mean_kld"):
        Mix()
    with pytest.raises(OptionError, match="max_bytes: 0 is not more than 0"):
        Mix(max_bytes=0)
    with pytest.raises(OptionError, match="max_mean_kld: nan is not more than 0"):
        Mix(max_mean_kld=float("nan"))


def test_what_gptq_does_is_measured_by_gptq(tmp_path: Path) -> None:
    model = made(tmp_path)
    calibration = context_of(model).calibration
    assert calibration is not None
    alone = Alone(model, calibration.statistics(model, gram=True), 0.01)
    form = Format(2, 32, False)
    for linear in linears(model):
        if linear.role == "embedding":
            continue
        assert alone.can(linear)
        gram = alone.statistics[linear.name].gram
        assert gram is not None
        weights, found = linear.matrix.numpy().astype(np.float64), alone.quantized(linear, form).numpy()
        simple = nearest(in_blocks(linear.matrix.numpy(), 32), form).weights().reshape(len(weights), -1)
        ours, theirs = (
            float(((floats[:, : weights.shape[1]] - weights) @ gram * (floats[:, : weights.shape[1]] - weights)).sum())
            for floats in (found, simple)
        )
        assert ours < 0.7 * theirs


def test_what_is_computed_for_eight_bits_is_about_what_is_measured(tmp_path: Path) -> None:
    model = made(tmp_path)
    items = items_of(model)
    found = Mix(max_bytes=1, method="nearest").measured(
        model, items, {bits: Format(bits, 32, False) for bits in (4, 8)}
    )
    ratios = np.array([found[name, 4] * EIGHT_BY_FOUR / found[name, 8] for name in items])
    assert 0.8 < np.median(ratios) < 1.25
    assert 0.5 < ratios.min() <= ratios.max() < 2


def test_without_a_text_a_mix_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="pass 'mix' needs a calibration text: --calibration-text FILE"):
        Mix(max_bytes=100)(graph(tiny.checkpoint("llama", tmp_path)))


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    model = made(tmp_path)
    Quantize()(model)
    with pytest.raises(GraphError, match="is quantized already"):
        Mix(max_bytes=100_000)(model)
