"""tests: what makes up for the matrices before: against ridge regression, and in the graphs of several families."""

from pathlib import Path

import numpy as np
import pytest

import tiny
from canonical import calibrated, graph, tokens
from cases import CASES
from edgewise.graph import linears
from edgewise.passes import context_of
from edgewise_plugins.quantize.drift import add_cross, drift, in_step, stream_of
from edgewise_plugins.quantize.factor import factorize

DAMPING = 0.01


@pytest.mark.parametrize("to_stream", [False, True])
def test_weights_go_half_the_way_to_those_of_ridge_regression(to_stream: bool) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(24, 96)).astype(np.float32)
    theirs = (rng.normal(size=(900, 96)) @ rng.normal(size=(96, 96))).astype(np.float32)
    x = (theirs + 0.02 * theirs @ rng.normal(size=(96, 96))).astype(np.float32)
    gram = x.T @ x / len(x)
    factor = factorize(gram, DAMPING)
    wanted = theirs @ weights.T
    difference = wanted - x @ weights.T if to_stream else theirs - x
    cross = add_cross(add_cross(None, difference[:500], x[:500]), difference[500:], x[500:]) / np.float32(len(x))
    found = drift(cross, factor, to_stream=to_stream)
    rest = (wanted - x @ weights.T).astype(np.float64)
    damped = gram + DAMPING * gram.diagonal().mean() * np.eye(96)
    change = rest.T @ x / len(x) @ np.linalg.inv(damped)
    made = np.concatenate([found.made_up_for(weights[:10], 0), found.made_up_for(weights[10:], 10)])
    np.testing.assert_allclose(made, weights + 0.5 * change, atol=2e-3 * np.abs(change).max())
    assert np.square(x @ made.T - wanted).sum() < 0.5 * np.square(x @ weights.T - wanted).sum()


@pytest.mark.parametrize("case", ["llama", "llama biased", "phi3", "qwen3"])
def test_products_that_add_to_the_stream_are_held_to_it(case: str, tmp_path: Path) -> None:
    model = graph(tiny.checkpoint(CASES[case].family, tmp_path, **CASES[case].overrides))
    streams = {linear.role: stream_of([linear]) for linear in linears(model) if linear.layer == 1}
    assert {role for role, stream in streams.items() if stream} == {"attention.o", "mlp.down"}
    assert str(streams["mlp.down"].name) == "hidden.2"  # type: ignore[union-attr]


def test_a_norm_before_the_stream_is_not_passed(tmp_path: Path) -> None:
    model = graph(tiny.checkpoint("gemma2", tmp_path))
    assert not any(stream_of([linear]) for linear in linears(model) if linear.role != "embedding")


@pytest.mark.parametrize("case", ["llama", "gemma2", "olmo2"])
def test_a_model_that_is_still_float_has_not_drifted(case: str, tmp_path: Path) -> None:
    model = calibrated(graph(tiny.checkpoint(CASES[case].family, tmp_path, **CASES[case].overrides)), tokens(3, 32))
    calibration = context_of(model).calibration
    assert calibration is not None
    with calibration.walk(model) as walk, calibration.walk(model.clone()) as floats:
        for group in walk.inputs(0).values():
            parts = list(in_step(walk, floats, 0, group))
            assert sum(len(x) for x, _ in parts) == 3 * 32
            assert all(x.shape[1] == group[0].matrix.dims[1] for x, _ in parts)
            assert all((difference == 0).all() for _, difference in parts)
