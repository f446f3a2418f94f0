"""tests: round to nearest: against the slow formula, exact arithmetic and ONNX Runtime's own quantizer."""

import os
import tracemalloc

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import CheckpointError
from edgewise.quantized import BlockQuantized, Format, dequantize, unpack
from edgewise.tensors import Streamed, constant
from edgewise_plugins.quantize import blocks
from edgewise_plugins.quantize.blocks import quantize_rows
from edgewise_plugins.quantize.nearest import nearest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
from onnxruntime.capi import _pybind_state as native

onnxruntime.disable_telemetry_events()

FORMATS = [Format(bits, size, symmetric) for bits in (2, 4, 8) for size in (32, 64, 128) for symmetric in (False, True)]
COLUMNS = [896, 4864, 300, 33]
INT4 = Format(4, 128, False)
TINY = float(np.finfo(np.float32).tiny)


def weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random weights with a few outliers, blocks of one sign and blocks of zeros."""
    rng = np.random.default_rng(seed)
    matrix = (rng.standard_t(4, (rows, columns)) * 0.02).astype(np.float32)
    matrix[0, :40] = np.abs(matrix[0, :40])
    matrix[-1] = -np.abs(matrix[-1])
    matrix[rows // 2] = 0
    return matrix


def slowly(block: np.ndarray, form: Format) -> tuple[list[int], np.float32, int]:
    """Codes, scale and zero point of one block, a weight at a time, in float32 as the definitions read."""
    one, half, tiny = np.float32(1), np.float32(0.5), np.float32(TINY)
    low, high = min(block.min(), np.float32(0)), max(block.max(), np.float32(0))
    if form.symmetric:
        zero_point = 2 ** (form.bits - 1)
        scale = (high if high > -low else low) / np.float32(-zero_point)
        scale = scale if abs(scale) >= tiny else tiny
    else:
        scale = max((high - low) / np.float32(form.top), tiny)
        zero_point = min(int(np.floor(-low / scale + half)), form.top)
    raw = [int(np.floor(weight * (one / scale) + (np.float32(zero_point) + half))) for weight in block]
    return [min(max(code, 0), form.top) for code in raw], scale, zero_point


def quantized(matrix: np.ndarray, form: Format) -> BlockQuantized:
    source = constant(matrix, name="w")
    return BlockQuantized(matrix.shape, form, lambda a, b: quantize_rows(nearest, source, form, a, b), name="w")


def parts(matrix: np.ndarray, form: Format) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes `[rows, blocks, block_size]`, scales and zero points `[rows, blocks]`."""
    block = quantize_rows(nearest, constant(matrix, name="w"), form, 0, len(matrix))
    blocks = block.scales.shape[1]
    if block.zero_points is None:
        zero_points = np.full(block.scales.shape, form.middle, np.uint8)
    else:
        zero_points = unpack(block.zero_points, form.bits)[:, :blocks]
    return unpack(block.packed, form.bits), block.scales, zero_points


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_codes_scales_and_zero_points_are_those_of_the_slow_formula(form: Format, columns: int) -> None:
    matrix = weights(5, columns)
    codes, scales, zero_points = parts(matrix, form)
    for row in range(5):
        for index in range(form.blocks(columns)):
            block = matrix[row, index * form.block_size : (index + 1) * form.block_size]
            slow_codes, scale, zero_point = slowly(block, form)
            assert (scales[row, index], zero_points[row, index]) == (scale, zero_point)
            assert codes[row, index, : len(block)].tolist() == slow_codes
            assert (codes[row, index, len(block) :] == zero_point).all()


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_codes_are_those_of_exact_arithmetic_but_where_a_weight_lies_halfway(form: Format) -> None:
    matrix = weights(9, 896, seed=1)
    codes, scales, zero_points = parts(matrix, form)
    exact = matrix.reshape(9, -1, form.block_size).astype(np.float64) / scales[..., None] + zero_points[..., None]
    rounded = np.clip(np.floor(exact + 0.5), 0, form.top)
    fraction = exact - np.floor(exact)
    assert ((codes == rounded) | (np.abs(fraction - 0.5) < 1e-4)).all()


def test_halves_round_up_and_codes_stay_in_their_range() -> None:
    def codes(values: list[float], *, symmetric: bool) -> list[int]:
        block = np.zeros((1, 32), np.float32)
        block[0, : len(values)] = values
        return [int(code) for code in parts(block, Format(4, 32, symmetric))[0][0, 0, : len(values)]]

    assert codes([0, 15, 0.5, 1.5, 2.5, 13.5], symmetric=False) == [0, 15, 1, 2, 3, 14]
    assert codes([-7.5, 7.5, -0.5, 0.5], symmetric=False) == [1, 15, 8, 9]  # scale 1, zero point 7.5, so 8
    assert codes([-8, 8, 7.5, 6.5, -0.5], symmetric=True) == [0, 15, 15, 15, 8]


@given(
    st.sampled_from(FORMATS),
    st.integers(1, 3),
    st.integers(1, 200),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-44, 1e-38, 1e-30, 0.02, 1.0, 1e30]),
    st.sampled_from([-1.0, 0.0, 1.0]),
)
def test_a_weight_is_off_by_half_a_step_at_most(
    form: Format, rows: int, columns: int, seed: int, scale: float, shift: float
) -> None:
    matrix = ((np.random.default_rng(seed).normal(size=(rows, columns)) + shift) * scale).astype(np.float32)
    block = quantize_rows(nearest, constant(matrix, name="w"), form, 0, rows)
    step = np.repeat(np.abs(block.scales), form.block_size, axis=1)[:, :columns].astype(np.float64)
    error = np.abs(dequantize(block, form, columns).astype(np.float64) - matrix)
    # the signed scale reaches -middle exactly and middle - 1 on the other side: there a weight may be a whole step off
    limit = 1.0 if form.symmetric else 0.5
    assert (error <= step * (limit + 1e-4) + np.abs(matrix) * 1e-6).all()  # 1e-6: rounding of float32 itself


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("block_size", [32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_bytes_are_those_of_onnxruntimes_own_quantizer(bits: int, block_size: int, symmetric: bool) -> None:
    rows, columns, form = 17, 1024, Format(bits, block_size, symmetric)
    rng = np.random.default_rng(3)
    matrix = (rng.normal(size=(rows, columns)) * 0.02).astype(np.float32)
    ours = quantized(matrix, form)
    packed = np.zeros(ours.packed.dims, np.uint8)
    scales = np.zeros(rows * form.blocks(columns), np.float32)
    zero_points = np.zeros(rows * form.blocks(columns) * bits // 8, np.uint8)
    quantize = getattr(native, f"quantize_matmul_{bits}bits")
    quantize(packed, np.ascontiguousarray(matrix.T), scales, zero_points, block_size, rows, columns, symmetric)
    np.testing.assert_allclose(ours.scales.read(0, rows).reshape(-1), scales, rtol=1e-6)
    different = unpack(ours.packed.read(0, rows), bits) != unpack(packed, bits)
    assert different.mean() < 1e-4  # its scale differs in the last bit: a weight that lies halfway may go either way
    if ours.zero_points:
        assert np.array_equal(ours.zero_points.read(0, rows).reshape(-1), zero_points)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_the_bytes_do_not_depend_on_which_rows_are_read_together(form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = weights(11, 300)
    whole = quantize_rows(nearest, constant(matrix, name="w"), form, 0, 11)
    monkeypatch.setattr(blocks, "CHUNK", 700)
    source = constant(matrix, name="w")
    pieces = [quantize_rows(nearest, source, form, a, b) for a, b in ((0, 1), (1, 8), (8, 11))]
    assert whole.packed.tobytes() == b"".join(piece.packed.tobytes() for piece in pieces)
    assert whole.scales.tobytes() == b"".join(piece.scales.tobytes() for piece in pieces)
    if whole.zero_points is not None:
        assert whole.zero_points.tobytes() == b"".join(
            piece.zero_points.tobytes() for piece in pieces if piece.zero_points is not None
        )


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_a_block_of_zeros_is_zeros(form: Format) -> None:
    matrix = quantized(np.zeros((3, 200), np.float32), form)
    assert (matrix.scales.read(0, 3) == TINY).all()
    assert (matrix.numpy() == 0).all()


@pytest.mark.parametrize("value", [0.3, -0.3, 7e4, 1e-40])
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_a_constant_block_comes_back_as_it_was(form: Format, value: float) -> None:
    matrix = np.full((2, 128), value, np.float32)
    np.testing.assert_allclose(quantized(matrix, form).numpy(), matrix, rtol=1e-6, atol=TINY / 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [INT4, Format(4, 32, True)], ids=str)
def test_a_weight_that_is_no_number_is_named_with_its_row(form: Format, value: float) -> None:
    matrix = weights(400, 300)
    matrix[317, 299] = value
    with pytest.raises(CheckpointError, match="weight 'w', row 317: not a number, infinite"):
        quantized(matrix, form).packed.numpy()


def test_memory_follows_the_chunk_and_not_the_matrix() -> None:
    row = weights(1, 4096)
    source = Streamed((16384, 4096), ir.DataType.FLOAT, lambda a, b: np.repeat(row, b - a, axis=0), name="w")
    matrix = BlockQuantized(source.dims, INT4, lambda a, b: quantize_rows(nearest, source, INT4, a, b))
    tracemalloc.start()
    for part in (matrix.packed, matrix.scales, matrix.zero_points):
        assert part is not None
        for start, stop in part.blocks():
            part.read(start, stop)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 256 MiB of floats become 32 MiB of codes: a block of 4 MiB, twice while it is joined, and 2 MiB of scales
    assert peak < 16 << 20
