"""tests: scales and codes that are refined: against least squares and coordinate descent, one number at a time."""

import numpy as np
import pytest

from edgewise.quantized import Format
from edgewise_plugins.quantize.blocks import Coded, in_blocks
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.quantize.refine import descend, fit_scales, refine

FORMATS = [Format(4, 32, False), Format(4, 128, True), Format(2, 64, False), Format(8, 32, False)]
COLUMNS = [300, 33]


def made(form: Format, columns: int) -> tuple[np.ndarray, np.ndarray, Coded]:
    """Weights with a row of zeros, second moments of inputs that are correlated, and the weights rounded."""
    rng = np.random.default_rng(columns)
    weights = (rng.standard_t(4, (6, columns)) * 0.02).astype(np.float32)
    weights[1] = 0
    inputs = rng.normal(size=(5 * columns, columns)) @ rng.normal(size=(columns, columns)) + 5 * rng.normal(
        size=columns
    )
    gram = (inputs.T @ inputs / len(inputs) + np.eye(columns)).astype(np.float32)
    return weights, gram, nearest(in_blocks(weights, form.block_size), form)


def error(coded: Coded, weights: np.ndarray, gram: np.ndarray) -> np.ndarray:
    difference = coded.weights().reshape(len(weights), -1)[:, : weights.shape[1]].astype(np.float64) - weights
    return np.asarray(((difference @ gram.astype(np.float64)) * difference).sum(axis=1))


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_scales_are_those_of_least_squares(form: Format, columns: int) -> None:
    weights, gram, start = made(form, columns)
    found, root = fit_scales(start, weights, gram), np.linalg.cholesky(gram.astype(np.float64)).T
    for row in (0, 2, 5):
        steps = (start.codes[row] - start.zero_points[row, :, None]).astype(np.float64)
        parts = [np.zeros((len(steps), form.block_size)) for _ in steps]
        for block, part in enumerate(parts):
            part[block] = steps[block]
        design = np.stack([root @ part.reshape(-1)[:columns] for part in parts], axis=1)
        solved = np.linalg.lstsq(design, root @ weights[row], rcond=None)[0]
        np.testing.assert_allclose(found.scales[row], solved, rtol=2e-3)
    assert np.array_equal(found.scales[1], start.scales[1])  # a row of zeros
    assert np.array_equal(found.codes, start.codes)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_codes_are_those_of_coordinate_descent(form: Format, columns: int) -> None:
    weights, gram, start = made(form, columns)
    found = descend(start, weights, gram, form).codes.reshape(6, -1)[:, :columns]
    slow = np.empty_like(found)
    for row in range(6):
        codes = start.codes[row].reshape(-1)[:columns].astype(np.float64)
        scales, zero_points = (np.repeat(a[row], form.block_size)[:columns] for a in (start.scales, start.zero_points))
        for j in range(columns):
            differences = (codes - zero_points) * scales - weights[row]
            differences[j] = 0  # what the others leave, this one is to make up for
            wanted = weights[row, j] - gram[j] @ differences / gram[j, j]
            codes[j] = np.clip(np.floor(wanted / scales[j] + zero_points[j] + 0.5), 0, form.top)
        slow[row] = codes
    assert (found != slow).mean() < 0.01  # float32 sums: a weight halfway goes either way


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_each_step_brings_every_row_closer(form: Format, columns: int) -> None:
    weights, gram, start = made(form, columns)
    before, fitted = error(start, weights, gram), fit_scales(start, weights, gram)
    for closer in (fitted, descend(fitted, weights, gram, form), refine(start, weights, gram, form)):
        after = error(closer, weights, gram)
        assert (after <= before * (1 + 1e-4)).all()
        before = after
    assert after.sum() < 0.8 * error(start, weights, gram).sum()


def test_what_lies_beyond_the_matrix_stays_zero() -> None:
    weights, gram, start = made(Format(4, 32, False), 33)
    assert (refine(start, weights, gram, Format(4, 32, False)).weights().reshape(6, -1)[:, 33:] == 0).all()
