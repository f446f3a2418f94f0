"""tests: second moments of a matrix that is the lm_head and the embedding: against the plain formulas."""

from pathlib import Path

import numpy as np

import tiny
from canonical import graph
from edgewise.graph import Roles
from edgewise.tensors import constant
from edgewise_plugins.quantize.tied import EMBEDDING, covariance, final_gains, with_embedding


def test_the_covariance_is_that_of_numpy() -> None:
    matrix = (np.random.default_rng(0).normal(size=(400, 33)) + 2).astype(np.float32)
    np.testing.assert_allclose(covariance(constant(matrix)), np.cov(matrix.T, bias=True), atol=1e-4)


def test_an_error_counts_by_what_it_changes_in_the_scores() -> None:
    rng = np.random.default_rng(0)
    matrix, gains = rng.normal(size=(200, 16)).astype(np.float32), rng.uniform(0.5, 3, 16).astype(np.float32)
    inputs, error = rng.normal(size=(300, 16)).astype(np.float32), rng.normal(size=16).astype(np.float32)
    found = with_embedding(inputs.T @ inputs / 300, constant(matrix), gains)
    head = np.square(inputs @ error).mean()
    scores = matrix @ (gains * error)  # what an error of the residual stream does, but for the norm's division
    through = np.square(scores - scores.mean()).mean()
    size_of_head = np.square(inputs).mean()
    size_through = np.square((matrix - matrix.mean(axis=0)) * gains).mean()
    np.testing.assert_allclose(
        error @ found @ error, head + EMBEDDING * size_of_head / size_through * through, rtol=1e-4
    )


def test_rows_that_are_all_alike_leave_the_moments_of_the_head() -> None:
    head = np.eye(8, dtype=np.float32)
    assert np.array_equal(with_embedding(head, constant(np.zeros((5, 8), np.float32)), np.ones(8, np.float32)), head)


def test_gains_are_those_of_the_last_norm(tmp_path: Path) -> None:
    model = graph(tiny.checkpoint("llama", tmp_path))
    gain = Roles.of(model).one("norm").inputs[1]
    assert gain is not None
    assert gain.const_value is not None
    assert np.array_equal(final_gains(model, 64), gain.const_value.numpy())
