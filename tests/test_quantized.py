"""tests: quantized matrices: their bytes against slow formulas and against ONNX Runtime's own operators."""

import os
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.quantized import Block, BlockQuantized, Format, pack, split, stack, unpack
from edgewise.tensors import Streamed, reshape

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

onnxruntime.disable_telemetry_events()

FORMATS = [Format(bits, size, symmetric) for bits in (2, 4, 8) for size in (32, 64, 128) for symmetric in (False, True)]
SHAPES = [(8, 256), (5, 300), (3, 896), (7, 33)]  # whole blocks, a part of a block, an odd number of blocks, one column


class Random:
    """A random quantized matrix, its codes at hand, and a count of the rows that were asked for."""

    def __init__(self, shape: tuple[int, int], form: Format, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        rows, columns = shape
        blocks = form.blocks(columns)
        self.form = form
        self.codes = rng.integers(0, form.top + 1, (rows, blocks, form.block_size), np.uint8)
        self.scales = rng.normal(size=(rows, blocks)).astype(np.float32)
        self.zero_points = rng.integers(0, form.top + 1, (rows, blocks), np.uint8)
        if form.symmetric:
            self.zero_points[:] = form.middle
        self.floats = np.empty(shape, np.float32)
        for row in range(rows):
            for column in range(columns):
                block, place = divmod(column, form.block_size)
                code, zero_point = int(self.codes[row, block, place]), int(self.zero_points[row, block])
                self.floats[row, column] = (code - zero_point) * self.scales[row, block]
        self.computed = 0
        self.matrix = BlockQuantized(shape, form, self.quantized)

    def quantized(self, start: int, stop: int) -> Block:
        self.computed += stop - start
        zero_points = None if self.form.symmetric else pack(self.zero_points[start:stop], self.form.bits)
        return Block(pack(self.codes[start:stop], self.form.bits), self.scales[start:stop], zero_points)


def walk(tensor: Streamed | None, step: int = 2) -> np.ndarray:
    assert tensor is not None
    rows = tensor.dims[0]
    return np.concatenate([tensor.read(a, min(a + step, rows)) for a in range(0, rows, step)])


def run(
    operator: str, data: np.ndarray, matrix: BlockQuantized, weights: tuple[Any, ...], **attributes: int
) -> np.ndarray:
    """One ONNX Runtime contrib operator on `data` and the parts of a quantized matrix."""
    parts = [matrix.scales] + ([matrix.zero_points] if matrix.zero_points else [])
    arrays = [np.asarray(tensor.numpy()) for tensor in (*weights, *parts)]
    initializers = [
        ir.Value(name=name, const_value=ir.tensor(array), shape=ir.Shape(array.shape))
        for name, array in zip(("weight", "scales", "zero_points"), arrays, strict=False)
    ]
    entry = ir.Value(name="data", shape=ir.Shape(data.shape), type=ir.TensorType(ir.DataType.from_numpy(data.dtype)))
    inputs = [entry, *initializers] if operator == "MatMulNBits" else [initializers[0], entry, *initializers[1:]]
    node = ir.node(operator, inputs, attributes, domain="com.microsoft")
    node.outputs[0].name, node.outputs[0].type = "out", ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": 21, "com.microsoft": 1}
    graph = ir.Graph([entry], node.outputs, nodes=[node], initializers=initializers, opset_imports=opsets, name="one")
    content = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"data": data})[0])


def matmul(matrix: BlockQuantized, data: np.ndarray, accuracy_level: int) -> np.ndarray:
    (rows, columns), form = matrix.dims, matrix.form
    attributes = {"K": columns, "N": rows, "bits": form.bits, "block_size": form.block_size}
    return run("MatMulNBits", data, matrix, (matrix.packed,), accuracy_level=accuracy_level, **attributes)


@given(st.sampled_from([2, 4, 8]), st.integers(1, 3), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_codes_are_packed_low_bits_first_and_come_back(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, columns), np.uint8)
    packed, per_byte = pack(codes, bits), 8 // bits
    pieces = [[row[at : at + per_byte].tolist() for at in range(0, columns, per_byte)] for row in codes]
    slow = [[sum(code << bits * i for i, code in enumerate(piece)) for piece in row] for row in pieces]
    assert packed.tolist() == slow
    assert np.array_equal(unpack(packed, bits)[:, :columns], codes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_the_floats_of_a_matrix_are_code_minus_zero_point_times_scale(form: Format, shape: tuple[int, int]) -> None:
    random = Random(shape, form)
    assert np.array_equal(random.matrix.numpy(), random.floats)
    assert np.array_equal(random.matrix.read(1, 3), random.floats[1:3])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_a_format_knows_its_bytes(form: Format, shape: tuple[int, int]) -> None:
    matrix = Random(shape, form).matrix
    parts = [matrix.packed, matrix.scales, *([matrix.zero_points] if matrix.zero_points else [])]
    assert [tuple(part.dims) for part in parts] == [part.read(0, shape[0]).shape for part in parts]
    assert matrix.stored_bytes == form.stored_bytes(*shape) == sum(part.nbytes for part in parts)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_matmulnbits_reads_the_layout(form: Format, shape: tuple[int, int]) -> None:
    random = Random(shape, form)
    data = np.random.default_rng(1).normal(size=(3, shape[1])).astype(np.float32)
    expected = data.astype(np.float64) @ random.floats.T
    got = matmul(random.matrix, data, accuracy_level=0)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_matmulnbits_with_int8_activations_errs_by_their_rounding_only(form: Format) -> None:
    random = Random((5, 300), form)
    data = np.random.default_rng(1).normal(size=(3, 300)).astype(np.float32)
    expected = data.astype(np.float64) @ random.floats.T
    # each activation is off by at most half a step of max / 127, the maximum taken over its block
    blocks = np.arange(300) // form.block_size
    step = np.stack([np.abs(data[:, blocks == block]).max(axis=1) / 127 for block in blocks], axis=1)
    bound = step / 2 @ np.abs(random.floats).T
    assert (np.abs(matmul(random.matrix, data, accuracy_level=4) - expected) <= 1.01 * bound).all()


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("rows", [8, 7])
def test_gatherblockquantized_reads_the_same_bytes(form: Format, rows: int) -> None:
    random = Random((rows, 384), form)
    matrix = random.matrix
    flat = reshape(matrix.packed, (rows, 384 * form.bits // 8))
    attributes = {"bits": form.bits, "block_size": form.block_size, "quantize_axis": 1, "gather_axis": 0}
    indices = np.array([[0, rows - 1], [3, 3]], np.int64)
    got = run("GatherBlockQuantized", indices, matrix, (flat,), **attributes)
    assert np.array_equal(got, random.floats[indices])


def test_the_embedding_view_of_a_tied_matrix_is_the_same_storage() -> None:
    matrix = Random((6, 384), Format(4, 128, False)).matrix
    flat = reshape(matrix.packed, (6, 192))
    assert flat.storage is matrix.packed.storage
    assert flat.read(0, 6).tobytes() == matrix.packed.read(0, 6).tobytes()


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_a_writer_has_each_row_quantized_once(form: Format) -> None:
    random = Random((7, 300), form)
    matrix = random.matrix
    walk(matrix.packed)
    assert np.array_equal(walk(matrix.scales, 3), random.scales)
    if matrix.zero_points:
        assert np.array_equal(walk(matrix.zero_points, 4), pack(random.zero_points, form.bits))
    assert random.computed == 7


def test_scales_and_zero_points_are_let_go_when_they_have_been_read() -> None:
    random = Random((7, 300), Format(4, 32, False))
    for part in (random.matrix.packed, random.matrix.scales, random.matrix.zero_points):
        walk(part)
    random.computed = 0
    walk(random.matrix.scales)
    assert random.computed == 7


@given(st.data())
def test_parts_read_in_any_order_are_the_same(data: st.DataObject) -> None:
    random = Random((9, 100), Format(4, 32, False))
    matrix = random.matrix
    parts = [
        (matrix.packed, pack(random.codes, 4)),
        (matrix.scales, random.scales),
        (matrix.zero_points, pack(random.zero_points, 4)),
    ]
    for _ in range(6):
        part, expected = data.draw(st.sampled_from(parts))
        start = data.draw(st.integers(0, 8))
        stop = data.draw(st.integers(start + 1, 9))
        assert part is not None
        assert np.array_equal(part.read(start, stop), expected[start:stop])


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_a_stack_has_the_rows_of_its_parts(form: Format) -> None:
    parts = [Random((rows, 300), form, seed=rows) for rows in (5, 1, 3)]
    stacked = stack([part.matrix for part in parts], name="qkv")
    assert stacked.dims == (9, 300)
    assert stacked.name == "qkv"
    assert np.array_equal(stacked.read(2, 8), np.concatenate([part.floats for part in parts])[2:8])
    for kind in ("packed", "scales", "zero_points"):
        if kind == "zero_points" and form.symmetric:
            assert stacked.zero_points is None
            continue
        wholes = [getattr(part.matrix, kind) for part in parts]
        assert np.array_equal(
            walk(getattr(stacked, kind), 4), np.concatenate([whole.read(0, whole.dims[0]) for whole in wholes])
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", [form for form in FORMATS if form.block_size > 32], ids=str)
def test_smaller_blocks_hold_the_same_weights(form: Format, shape: tuple[int, int]) -> None:
    made = Random(shape, form)
    small = split(made.matrix, 32)
    assert small.form == Format(form.bits, 32, form.symmetric)
    np.testing.assert_array_equal(walk(small), made.floats)
    for tensor in (small.packed, small.scales, small.zero_points):
        assert tensor is None or walk(tensor).shape == tuple(tensor.dims)
