"""tests: random rotations, and rows that are turned while they are read."""

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.tensors import Streamed, constant
from edgewise_plugins.hadamard import hartley, random_rotation, sylvester
from edgewise_plugins.views import Recent, scale_rows, turn_columns, turn_rows


@pytest.mark.parametrize("size", [1, 2, 64, 7, 96, 300, 896])
def test_rotations_are_orthogonal_and_even(size: int) -> None:
    turn = random_rotation(size, seed=0)
    np.testing.assert_allclose(turn @ turn.T, np.eye(size), atol=2e-6)
    assert np.abs(turn).max() <= np.sqrt(2 / size) * 1.001  # no channel stays by itself
    assert np.array_equal(turn, random_rotation(size, seed=0))


def test_the_parts_of_a_rotation_are_what_their_names_say() -> None:
    assert np.array_equal(sylvester(4), [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    np.testing.assert_allclose(hartley(7) @ hartley(7).T, 7 * np.eye(7), atol=1e-12)


@pytest.mark.parametrize("unit", [8, 48])
def test_turned_rows_are_the_same_however_they_are_read(unit: int) -> None:
    matrix, turn = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32), random_rotation(unit, 3)
    expected = np.concatenate([turn.T @ matrix[run : run + unit] for run in range(0, 48, unit)])
    recent = Recent()
    views = [turn_rows(constant(matrix * factor), turn, recent) for factor in (np.float32(1), np.float32(2))]
    for start, stop in ((0, 48), (3, 4), (30, 48), (7, 31)):
        for view, factor in zip(views, (1, 2), strict=True):
            np.testing.assert_allclose(view.read(start, stop), factor * expected[start:stop], atol=1e-5)


def test_nothing_is_read_before_somebody_reads() -> None:
    def refuse(start: int, stop: int) -> np.ndarray:
        raise AssertionError("a weight was read")

    unread = Streamed((16, 8), ir.DataType.FLOAT, refuse)
    turned = turn_rows(turn_columns(scale_rows(unread, np.ones(16, np.float32)), np.eye(8)), np.eye(16), Recent())
    with pytest.raises(AssertionError, match="a weight was read"):
        turned.read(0, 1)
