"""tests: zeros among the weights: as many as asked for, the right ones, and made up for as the formulas say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from canonical import calibrated, graph, logits, tokens
from cases import CASES
from edgewise.errors import EdgewiseError, GraphError, OptionError, RecipeError
from edgewise.graph import ZEROS, Linear, gather_zeros, layer_matrices, linears, remarks
from edgewise.passes import BuildContext
from edgewise.plan import plan_build
from edgewise.quantized import Format
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.target import Hardware, Number
from edgewise.tensors import constant
from edgewise_plugins.prune.width import PruneWidth
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.factor import factorize
from edgewise_plugins.quantize.gptq import Moments, gptq
from edgewise_plugins.sparse.pattern import Pattern
from edgewise_plugins.sparse.score import without_lowest
from edgewise_plugins.sparse.sparsegpt import BATCH, sparsegpt
from edgewise_plugins.sparse.sparsify import Sparsify, effect

HALF, FOURS = Pattern(0.5), Pattern(0.5, fours=True)
PATTERNS = pytest.mark.parametrize("pattern", [HALF, Pattern(0.3), FOURS], ids=str)
DAMPING = 0.01
TEXT, FRESH = tokens(48, 64), tokens(8, 48, seed=9)

pytestmark = pytest.mark.usefixtures("cache")


def weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_t(4, (rows, columns)) * 0.02).astype(np.float32)


def second_moments(columns: int, seed: int = 1) -> np.ndarray:
    """Of inputs that are correlated, some channels much larger than others."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(6 * columns, columns)) @ rng.normal(size=(columns, columns)) / columns**0.5
    inputs = (inputs + rng.normal(size=inputs.shape)) * np.exp(0.7 * rng.normal(size=columns))
    return np.asarray(inputs.T @ inputs / len(inputs), np.float32)


def error(found: np.ndarray, matrix: np.ndarray, gram: np.ndarray) -> float:
    difference = found.astype(np.float64) - matrix
    return float((difference @ gram * difference).sum())


def fast(matrix: np.ndarray, gram: np.ndarray, pattern: Pattern) -> np.ndarray:
    return sparsegpt(matrix, factorize(gram, DAMPING, order=np.arange(len(gram))).upper, pattern)


def slowly(matrix: np.ndarray, gram: np.ndarray, pattern: Pattern) -> np.ndarray:
    """The optimal brain surgeon in float64: an inverse from which each column is taken when it is done with."""
    rows, columns = matrix.shape
    inverse = np.linalg.inv(gram.astype(np.float64) + DAMPING * gram.diagonal().mean() * np.eye(columns))
    inverses = []
    for j in range(columns):
        inverses.append(inverse.copy())
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    diagonal = np.array([each[j, j] for j, each in enumerate(inverses)])
    found, gone = matrix.astype(np.float64), np.zeros(matrix.shape, bool)
    for j in range(columns):
        losses = found**2 / diagonal
        if pattern.fours and j % 4 == 0:
            chosen = np.zeros(matrix.shape, bool)
            for row in range(rows):
                chosen[row, j + np.argsort(losses[row, j : j + 4])[:2]] = True
        elif not pattern.fours and j % BATCH == 0:
            rest = sorted((losses[row, i], row, i) for row in range(rows) for i in range(j, columns))
            chosen = np.zeros(matrix.shape, bool)
            for _, row, i in rest[: round(pattern.share * matrix.size) - int(gone.sum())]:
                chosen[row, i] = True
        for row in np.flatnonzero(chosen[:, j]).tolist():
            found[row] -= found[row, j] / inverses[j][j, j] * inverses[j][j]
            gone[row, j] = True
    found[gone] = 0
    return found


@PATTERNS
@pytest.mark.parametrize("columns", [64, 300])
def test_sparsegpt_is_the_optimal_brain_surgeon_column_by_column(columns: int, pattern: Pattern) -> None:
    matrix, gram = weights(6, columns), second_moments(columns)
    found, slow = fast(matrix, gram, pattern), slowly(matrix, gram, pattern)
    assert ((found == 0) == (slow == 0)).mean() > 0.98  # float32 sums: of two that count alike, either goes
    assert error(found, matrix, gram) == pytest.approx(error(slow, matrix, gram), rel=0.02)


@PATTERNS
@given(seed=st.integers(0, 1000), rows=st.integers(16, 40), fours=st.integers(16, 60))
@settings(max_examples=30, deadline=None)
def test_sparsegpt_never_has_more_error_than_magnitude(pattern: Pattern, seed: int, rows: int, fours: int) -> None:
    matrix, gram = weights(rows, 4 * fours, seed), second_moments(4 * fours, seed)
    ones, norms = np.float32(1), np.sqrt(gram.diagonal())
    by_size, by_input = (without_lowest(constant(matrix), each, pattern).numpy() for each in (ones, norms))
    found = error(fast(matrix, gram, pattern), matrix, gram)
    assert found <= error(by_size, matrix, gram)
    assert found <= error(by_input, matrix, gram)


@PATTERNS
@given(seed=st.integers(0, 1000), rows=st.integers(1, 5), fours=st.integers(1, 40), levels=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_there_are_exactly_as_many_zeros_as_asked_for(
    pattern: Pattern, seed: int, rows: int, fours: int, levels: int
) -> None:
    """Whatever is equal: few levels stand for weights of a checkpoint in 16 bits."""
    columns, rng = 4 * fours, np.random.default_rng(seed)
    matrix = (rng.integers(1, levels + 1, (rows, columns)) * rng.choice([-1, 1], (rows, columns))).astype(np.float32)
    simple, compensated = (
        found == 0
        for found in (
            without_lowest(constant(matrix), np.float32(1), pattern).numpy(),
            fast(matrix, second_moments(columns, seed), pattern),
        )
    )
    assert (simple.sum(axis=1) == round(pattern.share * columns)).all()
    assert compensated.sum() == round(pattern.share * matrix.size)
    for zeros in (simple, compensated) if pattern.fours else ():
        assert (zeros.reshape(rows, -1, 4).sum(axis=2) == 2).all()


@PATTERNS
def test_wanda_removes_what_counts_least_beside_its_row(pattern: Pattern) -> None:
    matrix, norms = weights(5, 40), np.exp(np.random.default_rng(2).normal(size=40)).astype(np.float32)
    expected = matrix.copy()
    for row in expected:
        width = 4 if pattern.fours else 40
        for start in range(0, 40, width):
            scores = np.abs(row[start : start + width]) * norms[start : start + width]
            row[start + np.argsort(scores)[: round(pattern.share * width)]] = 0
    np.testing.assert_array_equal(without_lowest(constant(matrix), norms, pattern).numpy(), expected)


def made(case: str, folder: Path) -> ir.Model:
    return calibrated(graph(tiny.checkpoint(CASES[case].family, folder, **CASES[case].overrides)), TEXT)


def sparse(model: ir.Model) -> dict[str, Linear]:
    return {lin.name: lin for lin in linears(model) if lin.layer is not None and not lin.role.endswith("router")}


def zeros_of(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: linear.matrix.numpy() == 0 for name, linear in sparse(model).items()}


@pytest.mark.parametrize(
    ("case", "pattern"),
    [
        ("llama biased", None),
        ("qwen2_moe", "2:4"),
        pytest.param("llama biased", "2:4", marks=pytest.mark.slow),
        pytest.param("qwen2_moe", None, marks=pytest.mark.slow),
    ],
)
def test_the_layers_get_zeros_and_closer_ones_by_better_methods(case: str, pattern: str | None, tmp_path: Path) -> None:
    before = made(case, tmp_path)
    expected, others = logits(before, FRESH), {linear.name: linear for linear in linears(before)}
    distances = {}
    for method in ("magnitude", "wanda", "sparsegpt"):
        model = made(case, tmp_path)
        Sparsify(method=method, pattern=pattern)(model)  # type: ignore[arg-type]
        found = sparse(model)
        for linear in linears(model):
            matrix = linear.matrix.numpy()
            if linear.name in found:
                assert (matrix == 0).sum() == matrix.size // 2
            else:
                np.testing.assert_array_equal(matrix, others[linear.name].matrix.numpy())
        distances[method] = float(np.square(logits(model, FRESH) - expected).mean())
    assert distances["sparsegpt"] < distances["wanda"] < 1.05 * distances["magnitude"]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("method", ["nearest", "grid", "hqq", "gptq"])
def test_zeros_are_zeros_when_they_are_quantized(method: str, symmetric: bool, tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    Sparsify(method="magnitude")(model)
    before = zeros_of(model)
    Quantize(bits=4, block_size=32, symmetric=symmetric, method=method)(model)  # type: ignore[arg-type]
    for name, zeros in zeros_of(model).items():
        assert zeros[before[name]].all()


def test_others_make_up_for_a_weight_that_stays_zero() -> None:
    matrix, gram = weights(9, 300), second_moments(300)
    matrix[:, ::2] = 0
    found = gptq(constant(matrix, name="w"), 0, 9, Moments(gram, factorize(gram, DAMPING)), Format(4, 32, False))
    values = found.coded.weights().reshape(9, -1)[:, :300]
    assert (values[:, ::2] == 0).all()
    assert error(values, matrix, gram) == pytest.approx(found.error, rel=1e-3)
    assert found.error < 0.8 * found.nearest_error


def test_a_plan_says_that_zeros_save_nothing(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    Sparsify(pattern="2:4", method="magnitude")(model)
    (said,) = remarks(model)
    assert said.startswith("2 of every 4 weights of the layers are zero; this device stores and multiplies them like")
    assert "no bytes, no memory and no time are saved" in said


def test_no_device_that_we_know_skips_zeros() -> None:
    """CUDAExecutionProvider multiplies densely; that of TensorRT for RTX has no option for sparse weights."""
    for name in registry().devices():
        assert "no time" in effect(FOURS, registry().get_target(name))


def test_a_device_whose_profile_says_so_skips_fours() -> None:
    cuda = registry().get_target("cuda")
    sparse_cores = replace(cuda, numerics=replace(cuda.numerics, sparsity=("2:4",)))
    assert "which the products of this device skip" in effect(FOURS, sparse_cores)
    assert "no time" in effect(HALF, sparse_cores)


def test_speed_is_predicted_with_what_a_device_skips(pycoder: Path) -> None:
    """Prompts, which arithmetic limits here; a token waits for as many bytes as before."""
    cuda, slow = registry().get_target("cuda"), Number(1e12, "a test", "estimated")
    hardware = Hardware(bandwidth=Number(1e11, "a test", "estimated"), compute={"float32": slow})
    dense = replace(cuda, hardware=hardware)
    skipping = replace(dense, numerics=replace(dense.numerics, sparsity=("2:4",)))
    fours = RecipeStep("sparsify", {"method": "magnitude", "pattern": "2:4"})
    halves = RecipeStep("sparsify", {"method": "magnitude"})
    plans = [
        plan_build(pycoder, target=target, recipe=Recipe((step,)))
        for target, step in ((dense, fours), (skipping, halves), (skipping, fours))
    ]
    without, other, skipped = (plan.speed for plan in plans)
    assert without
    assert other
    assert skipped
    assert without.first_token_s == other.first_token_s > 1.2 * skipped.first_token_s
    assert without.decode_tokens_per_s == skipped.decode_tokens_per_s
    assert "have half of their operations" in plans[2].remarks[0]


def test_zeros_are_stated_until_a_matrix_is_another_one(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    Sparsify(method="magnitude", pattern="2:4")(model)
    gather_zeros(model)
    assert model.metadata_props[ZEROS] == "2:4"
    for step, stated in (
        (Quantize(bits=4, block_size=32, method="nearest"), {"2:4"}),
        (PruneWidth(keep=0.5, multiple=8), {"2:4", None}),
    ):
        other = model.clone()
        other.meta["edgewise"] = model.meta["edgewise"]
        step(other)
        assert {linear.zeros for linear in layer_matrices(other)} == stated


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.0}, "sparsity: 0.0 is not between 0 and 1"),
        ({"sparsity": 1.0}, "sparsity: 1.0 is not between 0 and 1"),
        ({"sparsity": 0.7, "pattern": "2:4"}, "sparsity: 0.7 is not the half of the weights that '2:4' sets to zero"),
        ({"pattern": "4:2"}, "pattern: '4:2' is not one of 2:4"),
        ({"method": "random"}, "method: 'random' is not one of magnitude, wanda, sparsegpt"),
        ({"damping": 0.0}, "damping: 0.0 is not more than 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Sparsify(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_methods_that_look_at_inputs_need_a_text(method: str, tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    model.meta["edgewise"] = BuildContext()
    with pytest.raises(RecipeError, match=f"method '{method}' needs a calibration text: --calibration-text FILE"):
        Sparsify(method=method)(model)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", ["llama", "qwen2_moe"])
def test_too_few_tokens_are_no_reason_to_fail(case: str, tmp_path: Path) -> None:
    """Fewer than a matrix has inputs; and experts that see none at all."""
    model = calibrated(graph(tiny.checkpoint(CASES[case].family, tmp_path, **CASES[case].overrides)), tokens(1, 4))
    other = model.clone()
    other.meta["edgewise"] = model.meta["edgewise"]
    Sparsify(method="sparsegpt")(model)
    Sparsify(method="wanda")(other)
    for made_sparse in (model, other):
        assert {round(float(zeros.mean()), 3) for zeros in zeros_of(made_sparse).values()} == {0.5}


def test_zeros_come_before_quantizing(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    Quantize(bits=8, block_size=32)(model)
    with pytest.raises(GraphError, match=r"is quantized already .*'sparsify' comes before"):
        Sparsify(method="magnitude")(model)


def test_a_matrix_whose_inputs_are_no_fours_is_one_line(tmp_path: Path) -> None:
    model = graph(tiny.checkpoint("llama", tmp_path, intermediate_size=90))
    with pytest.raises(EdgewiseError, match="has 90 inputs, which are no fours for '2:4'"):
        Sparsify(method="magnitude", pattern="2:4")(model)
