"""tests: what is removed, and what the rest becomes, against least squares solved the slow way."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from edgewise.errors import OptionError
from edgewise_plugins.moe.dense import DenseToMoe
from edgewise_plugins.prune.eliminate import Moments, eliminate, refit
from edgewise_plugins.prune.heads import PruneHeads
from edgewise_plugins.prune.hidden import PruneHidden
from edgewise_plugins.prune.width import PruneWidth

TOKENS, INPUTS, OUTPUTS = 400, 12, 5


def text(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs `[tokens, inputs]` that depend on one another, what should be given, and a matrix that gives it nearly."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(TOKENS, INPUTS)) @ rng.normal(size=(INPUTS, INPUTS)) + rng.normal(size=INPUTS)
    weights = rng.normal(size=(OUTPUTS, INPUTS))
    return x, x @ weights.T + 0.1 * rng.normal(size=(TOKENS, OUTPUTS)) + 0.5, weights


def moments(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Moments:
    return Moments(weights, x.T @ x / len(x), y.T @ x / len(x), x.mean(axis=0), y.mean(axis=0))


def least_squares(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights, bias and the mean squared error of the best fit with a constant."""
    design = np.column_stack([x, np.ones(len(x))])
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    return solution[:-1].T, solution[-1], float(np.square(design @ solution - y).sum() / len(x))


@pytest.mark.parametrize("size", [1, 3])
def test_the_rest_is_what_least_squares_gives(size: int) -> None:
    x, y, weights = text()
    units = np.arange(INPUTS).reshape(-1, size)
    chosen = [0, 2, 3]
    found = refit(moments(x, y, weights), units, chosen, damping=0)
    expected, bias, _ = least_squares(x[:, units[chosen].ravel()], y)
    assert_allclose(found.weights, expected, atol=1e-4)
    assert_allclose(found.bias, bias, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_the_unit_that_goes_is_the_one_whose_loss_is_made_up_for_best(size: int, seed: int) -> None:
    x, y, weights = text(seed)
    units = np.arange(INPUTS).reshape(-1, size)
    found = eliminate(moments(x, y, weights), units, len(units) - 1, damping=0)
    errors = [least_squares(np.delete(x, unit, axis=1), y)[2] for unit in units]
    assert set(range(len(units))) - set(found.units) == {int(np.argmin(errors))}
    expected, bias, _ = least_squares(x[:, units[found.units].ravel()], y)
    assert_allclose(found.weights, expected, atol=1e-4)
    assert_allclose(found.bias, bias, atol=1e-4)


def test_what_the_text_does_not_tell_stays_as_it_was() -> None:
    x, _, weights = text()
    x[:, 4] = 0  # an input that never comes: nothing is known about its weights
    y = x @ weights.T
    found = eliminate(moments(x, y, weights), np.arange(INPUTS)[:, None], INPUTS, damping=0.01)
    assert_allclose(found.weights, weights, atol=1e-5)
    assert_allclose(found.bias, 0, atol=1e-5)


def test_inputs_that_are_always_zero_go_first_and_change_nothing() -> None:
    x, _, weights = text()
    x[:, [1, 7]] = 0
    y = x @ weights.T
    found = eliminate(moments(x, y, weights), np.arange(INPUTS)[:, None], INPUTS - 2, damping=0.001)
    assert set(range(INPUTS)) - set(found.units) == {1, 7}
    assert_allclose(found.weights, np.delete(weights, [1, 7], axis=1), atol=1e-2)


@pytest.mark.parametrize("damping", [-1.0, math.nan, math.inf])
def test_damping_that_is_none_is_refused(damping: float) -> None:
    for kind in (PruneWidth, PruneHeads, PruneHidden, DenseToMoe):
        with pytest.raises(OptionError, match="is not 0 or more, and finite"):
            kind(damping=damping)
