"""tests: GPTQ: against optimal brain quantization step by step, and by the properties that were published."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edgewise.errors import CheckpointError, GraphError
from edgewise.quantized import Format
from edgewise.tensors import constant
from edgewise_plugins.quantize.blocks import in_blocks
from edgewise_plugins.quantize.factor import factorize, invert_triangle
from edgewise_plugins.quantize.gptq import Compensated, Moments, compensated, gptq
from edgewise_plugins.quantize.grid import grid_for
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.quantize.spill import temporary

FORMATS = [Format(bits, size, symmetric) for bits in (2, 4, 8) for size in (32, 128) for symmetric in (False, True)]
DAMPING = 0.01


def weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_t(4, (rows, columns)) * 0.02).astype(np.float32)


@cache
def second_moments(columns: int, seed: int = 1) -> np.ndarray:
    """Of inputs that are correlated, some channels much larger than others."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(columns, columns)) * np.exp(-np.arange(columns) / (columns / 6))
    inputs = rng.normal(size=(6 * columns, columns)) @ mix.T * np.exp(0.7 * rng.normal(size=columns))
    inputs += rng.normal(size=inputs.shape)
    return (inputs.T @ inputs / len(inputs)).astype(np.float32)


def moments(gram: np.ndarray) -> Moments:
    return Moments(gram, factorize(gram, DAMPING))


def run(matrix: np.ndarray, gram: np.ndarray, form: Format) -> Compensated:
    return gptq(constant(matrix, name="w"), 0, len(matrix), moments(gram), form)


def error(floats: np.ndarray, matrix: np.ndarray, gram: np.ndarray) -> float:
    difference = floats.reshape(len(matrix), -1)[:, : matrix.shape[1]].astype(np.float64) - matrix
    return float((difference @ gram.astype(np.float64) * difference).sum())


def damped(gram: np.ndarray) -> np.ndarray:
    return np.asarray(gram.astype(np.float64) + DAMPING * gram.diagonal().mean() * np.eye(len(gram)))


def slowly(matrix: np.ndarray, gram: np.ndarray, form: Format) -> np.ndarray:
    """Optimal brain quantization: round a column, spread its error, take it out of the inverse; float64, no factor."""
    start = grid_for(gram.diagonal(), form)(in_blocks(matrix, form.block_size), form)
    floats, inverse = matrix.astype(np.float64), np.linalg.inv(damped(gram))
    rounded = np.empty_like(floats)
    for j in np.argsort(-gram.diagonal(), kind="stable"):
        scale, zero_point = (a[:, j // form.block_size].astype(np.float64) for a in (start.scales, start.zero_points))
        rounded[:, j] = (np.clip(np.floor(floats[:, j] / scale + zero_point + 0.5), 0, form.top) - zero_point) * scale
        floats -= np.outer((floats[:, j] - rounded[:, j]) / inverse[j, j], inverse[j])
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        inverse[j, j] = 1  # it is done with
    return rounded


@pytest.mark.parametrize("columns", [300, 33, 128])
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_the_weights_are_those_of_optimal_brain_quantization(form: Format, columns: int) -> None:
    matrix, gram = weights(24, columns), second_moments(columns)
    start = grid_for(gram.diagonal(), form)(in_blocks(matrix, form.block_size), form)
    coded = compensated(matrix, start, factorize(gram, DAMPING), form)
    found, slow = coded.weights().reshape(24, -1)[:, :columns], slowly(matrix, gram, form)
    steps = np.abs(found - slow) > 1e-5 * np.abs(slow).max()
    assert steps.mean() < 0.15  # float32 sums: a weight halfway goes either way, and those after it make up for it
    assert error(found, matrix, gram) == pytest.approx(error(slow, matrix, gram), rel=0.04)


@pytest.mark.parametrize("columns", [896, 300])
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_no_row_has_more_error_than_round_to_nearest(form: Format, columns: int) -> None:
    matrix, gram = weights(9, columns), second_moments(columns)
    simple = nearest(in_blocks(matrix, form.block_size), form).weights()
    found = run(matrix, gram, form)
    for row in range(9):
        one = slice(row, row + 1)
        ours = error(found.coded.weights()[one], matrix[one], gram)
        assert ours <= error(simple[one], matrix[one], gram) * (1 + 1e-5)
    assert found.error == pytest.approx(error(found.coded.weights(), matrix, gram), rel=1e-3)
    assert found.nearest_error == pytest.approx(error(simple, matrix, gram), rel=1e-3)


def test_a_matrix_as_wide_as_in_real_models_is_closer_than_round_to_nearest() -> None:
    form, columns = Format(4, 128, False), 4864
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(600, columns)).astype(np.float32) * np.exp(rng.normal(size=columns)).astype(np.float32)
    gram, matrix = inputs.T @ inputs / np.float32(600), weights(2, columns)
    found = run(matrix, gram, form)
    assert found.error < 0.5 * found.nearest_error
    assert found.error == pytest.approx(error(found.coded.weights(), matrix, gram), rel=1e-3)


@pytest.mark.parametrize("form", [Format(4, 32, False), Format(4, 128, False), Format(2, 32, False)], ids=str)
def test_methods_rank_as_they_were_measured_to(form: Format) -> None:
    matrix, gram = weights(64, 256), second_moments(256)
    blocks = in_blocks(matrix, form.block_size)
    simple, plain, weighted = (
        error(kernel(blocks, form).weights(), matrix, gram)
        for kernel in (nearest, grid_for(None, form), grid_for(gram.diagonal(), form))
    )
    compensated = run(matrix, gram, form).error
    assert compensated < 0.35 * weighted
    assert weighted < plain < simple


def test_blocks_of_128_by_gptq_are_closer_than_blocks_of_32_rounded_to_nearest() -> None:
    matrix, gram = weights(64, 256), second_moments(256)
    small = nearest(in_blocks(matrix, 32), Format(4, 32, True)).weights()
    assert run(matrix, gram, Format(4, 128, False)).error < 0.5 * error(small, matrix, gram)


def test_rows_that_would_be_worse_off_keep_round_to_nearest() -> None:
    form = Format(4, 32, False)
    gram, other = second_moments(128), np.diag(np.full(128, 1e-3, np.float32))
    other[0, 0] = 1  # the factor is that of other inputs: what it makes up for is not what these need
    mixed = Moments(other, factorize(gram, DAMPING))
    found = gptq(constant(weights(40, 128), name="w"), 0, 40, mixed, form)
    simple = nearest(in_blocks(weights(40, 128), 32), form).weights()
    assert found.kept_rows > 0
    assert (found.coded.weights() == simple).all(axis=(1, 2)).sum() >= found.kept_rows


@pytest.mark.parametrize("columns", [1, 127, 300, 896])
def test_the_factor_is_that_of_the_inverse(columns: int) -> None:
    gram = second_moments(columns)
    factor = factorize(gram, DAMPING)
    inverse = np.linalg.inv(damped(gram)[np.ix_(factor.order, factor.order)])
    np.testing.assert_allclose(factor.upper.T @ factor.upper, inverse, rtol=1e-3, atol=1e-4 * np.abs(inverse).max())
    assert (np.tril(factor.upper, -1) == 0).all()
    assert (np.diff(gram.diagonal()[factor.order]) <= 0).all()


@pytest.mark.parametrize("size", [1, 128, 129, 300])
def test_a_triangle_is_inverted_in_place(size: int) -> None:
    lower = np.linalg.cholesky(second_moments(size)).astype(np.float32)
    inverse = lower.copy()
    invert_triangle(inverse)
    np.testing.assert_allclose(inverse @ lower, np.eye(size), atol=1e-4)


def test_inputs_that_repeat_each_other_are_damped_until_they_can_be_factored() -> None:
    inputs = np.repeat(np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32), 16, axis=1) * 1000
    gram = (inputs.T @ inputs / 400).astype(np.float32)
    factor = factorize(gram, 1e-9)  # float32 alone cannot
    assert np.isfinite(factor.upper).all()
    found = gptq(constant(weights(8, 256), name="w"), 0, 8, Moments(gram, factor), Format(4, 128, False))
    assert found.error <= found.nearest_error


def test_second_moments_that_are_none_are_refused() -> None:
    with pytest.raises(GraphError, match="the second moments of 4 inputs are not positive definite"):
        factorize(np.diag(np.array([1, -900, 1, 1], np.float32)), DAMPING)


def test_without_any_input_weights_are_rounded_one_by_one() -> None:
    form, matrix = Format(4, 128, False), weights(8, 256)
    blocks = in_blocks(matrix, 128)
    found, grids = run(matrix, np.zeros((256, 256), np.float32), form).coded, grid_for(None, form)(blocks, form)
    assert np.square(found.weights() - blocks).sum() <= np.square(grids.weights() - blocks).sum()


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_zeros_stay_zeros(form: Format) -> None:
    found = run(np.zeros((3, 300), np.float32), second_moments(300), form)
    assert (found.coded.weights() == 0).all()


def test_what_lies_beyond_the_matrix_is_zero() -> None:
    for form in FORMATS:
        assert (run(weights(5, 33), second_moments(33), form).coded.weights().reshape(5, -1)[:, 33:] == 0).all()


def test_a_weight_that_is_no_number_is_named_with_its_row() -> None:
    matrix = weights(50, 128)
    matrix[41, 3] = np.nan
    with pytest.raises(CheckpointError, match="weight 'w', row 41: not a number"):
        run(matrix, second_moments(128), Format(4, 32, False))


def test_the_same_inputs_give_the_same_bytes() -> None:
    matrix, gram, form = weights(30, 300), second_moments(300), Format(4, 32, False)
    first, second = (run(matrix, gram, form).coded.stored(form) for _ in range(2))
    assert first.packed.tobytes() == second.packed.tobytes()
    assert first.scales.tobytes() == second.scales.tobytes()


@pytest.mark.parametrize("form", [Format(4, 32, False), Format(4, 128, True), Format(2, 64, False)], ids=str)
def test_matrices_come_back_from_disk_as_they_went(form: Format, tmp_path: Path) -> None:
    spill, stored = temporary(tmp_path), {}
    for number, shape in enumerate(((7, 300), (3, 33), (5, 896))):
        coded = nearest(in_blocks(weights(*shape, seed=number), form.block_size), form)
        rows = [coded._replace(**{key: getattr(coded, key)[a:b] for key in coded._fields}) for a, b in ((0, 2), (2, 9))]
        stored[shape] = coded, spill.write(shape, form, (part.stored(form) for part in rows), name="w")
    for (rows_, columns), (coded, matrix) in stored.items():
        assert np.array_equal(matrix.numpy(), coded.weights().reshape(rows_, -1)[:, :columns])
        assert matrix.packed.read(1, 3).tobytes() == coded.stored(form).packed[1:3].tobytes()
    assert not list(tmp_path.iterdir())  # the file has no name: nobody has to remove it
