"""tests: views of tensors read by rows are what NumPy makes of the whole."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.floats import FORMATS, convert, is_finite
from edgewise.tensors import Streamed, cast, concatenate, constant, map_rows, reshape, slice_rows, storage, transpose

FLOAT = ir.DataType.FLOAT
NARROW = [ir.DataType.FLOAT16, ir.DataType.BFLOAT16]


def every(dtype: ir.DataType) -> np.ndarray:
    """All values of a format of 16 bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy())


def finite(array: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # the NaN that ml_dtypes warns of are what this is about
        return np.asarray(np.isfinite(array))


def matrix(rows: int = 7, columns: int = 5, dtype: Any = ml_dtypes.bfloat16) -> np.ndarray:
    return np.arange(rows * columns).reshape(rows, columns).astype(dtype)


def by_rows(tensor: Streamed) -> np.ndarray:
    return np.concatenate([tensor.read(i, i + 1) for i in range(tensor.dims[0])])


@pytest.mark.parametrize("dtype", NARROW)
def test_a_cast_to_float32_is_exact(dtype: ir.DataType) -> None:
    values = every(dtype)
    numbers = values[finite(values)]
    for some in (numbers, values):
        np.testing.assert_array_equal(convert(some, FLOAT), some.astype(np.float32))
    np.testing.assert_array_equal(convert(numbers, FLOAT).view(np.uint32), numbers.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_no_number_is_told_from_the_bits(dtype: ir.DataType) -> None:
    values = every(dtype)
    assert [is_finite(values[i : i + 1], dtype) for i in range(len(values))] == finite(values).tolist()


@given(values=st.lists(st.floats(), max_size=4))
def test_one_infinite_value_makes_an_array_infinite(values: list[float]) -> None:
    for dtype in FORMATS:
        with np.errstate(over="ignore"):
            array = np.array(values, np.float64).astype(dtype.numpy())
        assert is_finite(array, dtype) == finite(array).all()


def test_views_agree_with_numpy_row_by_row() -> None:
    array = matrix()
    tensor, wide = constant(array), array.astype(np.float32)
    for view, expected in (
        (tensor, array),
        (cast(tensor, FLOAT), wide),
        (transpose(tensor), array.T),
        (transpose(cast(tensor, FLOAT)), wide.T),
        (cast(transpose(tensor), FLOAT), wide.T),
        (transpose(transpose(cast(tensor, FLOAT))), wide),
        (slice_rows(cast(tensor, FLOAT), 2, 6), wide[2:6]),
        (transpose(slice_rows(tensor, 2, 6)), array[2:6].T),
        (concatenate([tensor, slice_rows(tensor, 1, 3), tensor]), np.concatenate([array, array[1:3], array])),
        (reshape(tensor, (7, 1, 5)), array.reshape(7, 1, 5)),
        (map_rows(cast(tensor, FLOAT), lambda rows: rows + 1), wide + 1),
        (constant(np.array(3.0)), np.array(3.0)),
    ):
        assert view.dims == expected.shape
        assert tuple(view.shape) == expected.shape
        assert view.dtype.numpy() == expected.dtype
        np.testing.assert_array_equal(view.numpy(), expected)
        if view.dims:
            np.testing.assert_array_equal(by_rows(view), expected)
            np.testing.assert_array_equal(np.concatenate(list(view.walk())), expected)


def test_a_matrix_larger_than_a_block_agrees() -> None:
    array = np.resize(np.arange(251, dtype=np.uint8), (5000, 3600))  # 251 is prime: no two rows alike
    turned = transpose(constant(array))
    wide = cast(turned, ir.DataType.INT16)
    assert len(list(turned.blocks())) > 1
    for view, expected in ((turned, array.T), (wide, array.T.astype(np.int16))):
        np.testing.assert_array_equal(np.concatenate(list(view.walk())), expected)
        np.testing.assert_array_equal(np.concatenate([view.read(*block) for block in view.blocks()]), expected)


@given(rows=st.integers(0, 50), columns=st.integers(1, 9), budget=st.integers(1, 200))
def test_blocks_cover_every_row_once_within_the_budget(rows: int, columns: int, budget: int) -> None:
    tensor = cast(constant(matrix(rows, columns)), FLOAT)
    blocks = list(tensor.blocks(budget))
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(rows))
    assert all(stop - start == 1 or (stop - start) * columns * 4 <= budget for start, stop in blocks)


def test_equal_views_of_one_tensor_are_the_same_bytes() -> None:
    tensor, other = constant(matrix()), constant(matrix())

    def views(tensor: Streamed) -> list[object]:
        made = [
            tensor,
            cast(tensor, FLOAT),
            transpose(tensor),
            slice_rows(tensor, 0, 2),
            slice_rows(tensor, 0, 3),
            concatenate([tensor, tensor]),
        ]
        return [storage(view) for view in made]

    assert views(tensor) == views(tensor)
    assert len({*views(tensor), *views(other)}) == 2 * len(views(tensor))
    assert storage(reshape(tensor, (7, 5, 1))) == storage(tensor)
    assert storage(transpose(transpose(cast(tensor, FLOAT)))) == storage(cast(tensor, FLOAT))
    assert storage(map_rows(tensor, np.negative)) != storage(map_rows(tensor, np.negative))
