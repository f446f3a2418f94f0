"""tests: the search of grids: against least squares, an exhaustive search, and round to nearest."""

import numpy as np
import pytest

from edgewise.errors import CheckpointError
from edgewise.quantized import BlockQuantized, Format
from edgewise.tensors import constant
from edgewise_plugins.quantize.blocks import Kernel, in_blocks, quantize_rows
from edgewise_plugins.quantize.grid import error, fit, grid, grid_for
from edgewise_plugins.quantize.nearest import nearest

FORMATS = [Format(bits, size, symmetric) for bits in (2, 4, 8) for size in (32, 128) for symmetric in (False, True)]
COLUMNS = [896, 300, 33]
TINY = float(np.finfo(np.float32).tiny)


def weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random weights with outliers, a block of one sign, a row of zeros and a row of one value."""
    rng = np.random.default_rng(seed)
    matrix = (rng.standard_t(4, (rows, columns)) * 0.02).astype(np.float32)
    matrix[0, :40] = np.abs(matrix[0, :40])
    matrix[1], matrix[2] = 0, 0.3
    return matrix


def importances(columns: int, seed: int = 1) -> np.ndarray:
    """Second moments as they are in models: a few channels have most of them, and some have none."""
    second_moments = np.exp(2 * np.random.default_rng(seed).normal(size=columns)).astype(np.float32)
    second_moments[::17] = 0
    return second_moments


def quantized(matrix: np.ndarray, kernel: Kernel, form: Format) -> BlockQuantized:
    source = constant(matrix, name="w")
    return BlockQuantized(matrix.shape, form, lambda a, b: quantize_rows(kernel, source, form, a, b), name="w")


def exhaustive(block: np.ndarray, importance: np.ndarray, form: Format) -> float:
    """The least error of a block over a fine mesh of scales and every zero point."""
    zero_points = [form.middle] if form.symmetric else range(form.top + 1)
    largest = 2.2 * float(np.abs(block).max()) / form.top
    signs = (1, -1) if form.symmetric else (1,)
    least = np.inf
    for scale in (sign * largest * step / 400 for step in range(40, 401) for sign in signs):
        for zero_point in zero_points:
            steps = np.clip(np.floor(block / scale + zero_point + 0.5), 0, form.top) - zero_point
            best = (importance * block * steps).sum() / max(float((importance * steps * steps).sum()), 1e-30)
            least = min(least, float((importance * (block - best * steps) ** 2).sum()))
    return least


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_no_block_has_more_error_than_round_to_nearest(form: Format, weighted: bool, columns: int) -> None:
    blocks = in_blocks(weights(6, columns), form.block_size)
    importance = in_blocks(importances(columns)[None], form.block_size) if weighted else None
    found, simple = (error(coded, blocks, importance) for coded in (grid(blocks, form, importance=importance),
                                                                    nearest(blocks, form)))  # fmt: skip
    assert (found <= simple).all()
    assert found.sum() < simple.sum()


@pytest.mark.parametrize("form", [Format(4, 32, False), Format(4, 32, True), Format(2, 32, False)], ids=str)
def test_blocks_come_close_to_an_exhaustive_search(form: Format) -> None:
    matrix, importance = weights(8, 32, seed=3)[3:], importances(32)
    blocks = in_blocks(matrix, 32)
    coded = grid(blocks, form, importance=importance[None, None])
    found = error(coded, blocks, importance[None, None])[:, 0]
    simple = error(nearest(blocks, form), blocks, importance[None, None])[:, 0]
    least = np.array([exhaustive(row.astype(np.float64), importance.astype(np.float64), form) for row in matrix])
    # most of what there is to gain over round to nearest is gained
    assert (simple - found).sum() > 0.7 * (simple - least).sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_the_scale_is_that_of_least_squares(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    codes, zero_points = rng.integers(0, 16, (3, 2, 32)).astype(np.uint8), np.full((3, 2), 7, np.float32)
    values, importance = rng.normal(size=(3, 2, 32)).astype(np.float32), importances(64).reshape(1, 2, 32)
    product, square = fit(codes, zero_points, values, importance if weighted else None)
    root = np.sqrt(importance) if weighted else np.ones((1, 2, 32), np.float32)
    for row in range(3):
        for block in range(2):
            steps = (codes[row, block].astype(np.float64) - 7) * root[0, block]
            solved = np.linalg.lstsq(steps[:, None], values[row, block] * root[0, block], rcond=None)[0][0]
            assert product[row, block] / square[row, block] == pytest.approx(solved, rel=1e-4)


def test_importance_decides_what_is_kept() -> None:
    matrix, form = weights(40, 256, seed=2), Format(4, 64, False)
    importance = importances(256)
    ours, alike = (quantized(matrix, grid_for(given, form), form).numpy() for given in (importance, None))
    weighted, plain = (((matrix - floats) ** 2 * importance).sum() for floats in (ours, alike))
    assert weighted < 0.95 * plain


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_zeros_stay_zeros_and_one_value_stays_itself(form: Format) -> None:
    floats = quantized(weights(4, 300), grid_for(importances(300), form), form).numpy()
    assert (floats[1] == 0).all()
    np.testing.assert_allclose(floats[2], 0.3, rtol=1e-6)


def test_columns_that_never_see_an_input_are_rounded_all_the_same() -> None:
    matrix, form = weights(4, 256)[3:], Format(4, 128, False)
    idle, alike = (quantized(matrix, grid_for(given, form), form) for given in (np.zeros(256, np.float32), None))
    assert np.array_equal(idle.numpy(), alike.numpy())
    half = np.where(np.arange(256) % 128 < 8, 1, 0).astype(np.float32)
    error = np.abs(quantized(matrix, grid_for(half, form), form).numpy() - matrix)
    assert error[:, half == 0].max() < 0.5 * np.abs(matrix).max()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_scale_of_weights_and_moments_does_not_matter(scale: float) -> None:
    matrix, form = weights(5, 256)[3:], Format(4, 128, False)
    codes = quantized(matrix, grid_for(importances(256), form), form).packed.numpy()
    scaled = quantized(matrix * np.float32(2.0**40), grid_for(importances(256) * np.float32(scale), form), form)
    assert (codes != scaled.packed.numpy()).mean() < 0.01  # near ties fall either way


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [Format(4, 128, False), Format(2, 32, True)], ids=str)
def test_a_weight_that_is_no_number_is_named_with_its_row(form: Format, value: float) -> None:
    matrix = weights(300, 300)
    matrix[271, 299] = value
    with pytest.raises(CheckpointError, match="weight 'w', row 271: not a number, infinite"):
        quantized(matrix, grid_for(None, form), form).packed.numpy()


def test_the_same_weights_give_the_same_bytes_whatever_is_read_together() -> None:
    form, source = Format(4, 32, False), constant(weights(9, 300), name="w")
    kernel = grid_for(importances(300), form)
    whole = quantize_rows(kernel, source, form, 0, 9).packed.tobytes()
    assert whole == b"".join(quantize_rows(kernel, source, form, a, a + 1).packed.tobytes() for a in range(9))
