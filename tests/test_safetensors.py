"""tests: our reader of safetensors and the safetensors library agree, and what they disagree on we refuse."""

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.numpy import save

from edgewise.errors import CheckpointError
from edgewise.safetensors import DTYPES, HEADER_BYTES, read_tensors

FEW = settings(max_examples=150, deadline=None)

# No float in any of the formats is infinite or NaN when its bytes are this small.
CALM_BYTES = st.integers(0, 0x3F)

letters = st.characters(exclude_categories=("C", "Z"))
names = st.text(letters, min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(sorted(DTYPES.values()))).numpy()
    shape = draw(shapes)
    size = int(np.prod(shape)) * dtype.itemsize
    data = bytes(draw(st.lists(CALM_BYTES, min_size=size, max_size=size)))
    if dtype == np.bool_:
        data = bytes(byte & 1 for byte in data)
    return np.frombuffer(data, dtype).reshape(shape)


files = st.dictionaries(names, arrays(), max_size=5).map(save)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safetensors") / "model.safetensors"


def library(content: bytes) -> dict[str, Any]:
    """What the safetensors library makes of a file."""
    return dict(deserialize(content))  # type: ignore[no-untyped-call]


def read_all(path: Path) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in read_tensors(path).items()}


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + data)
    return path


def tensor(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def refused(path: Path, message: str) -> None:
    """The file is refused in one line that names it, before any data is read."""
    with pytest.raises(CheckpointError, match=message) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400 + len(str(path))


@FEW
@given(content=files)
def test_the_safetensors_library_reads_the_same(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tensors = read_tensors(path)
    expected = library(content)
    assert tensors.keys() == expected.keys()
    for name, fields in expected.items():
        assert tensors[name].name == name
        assert list(tensors[name].dims) == fields["shape"]
        assert tensors[name].dtype == DTYPES[fields["dtype"]]
        assert tensors[name].tobytes() == bytes(fields["data"])


@FEW
@given(content=files, data=st.data())
def test_a_damaged_file_is_refused_or_read_as_the_library_reads_it(
    path: Path, content: bytes, data: st.DataObject
) -> None:
    end = 8 + int.from_bytes(content[:8], "little")
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    agrees_or_refuses(path, bytes(damaged))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["F32", "I4", "", "x\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)


@FEW
@given(content=files, data=st.data())
def test_a_header_with_other_values_is_refused_or_read_as_the_library_reads_it(
    path: Path, content: bytes, data: st.DataObject
) -> None:
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    name = data.draw(st.sampled_from(["new", "__metadata__", *header]))
    field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "new", None]))
    value = data.draw(json_values)
    if field is None or name not in header:
        header[name] = value
    else:
        header[name][field] = value
    write(path, header, content[end:])
    agrees_or_refuses(path, path.read_bytes())


def agrees_or_refuses(path: Path, content: bytes) -> None:
    try:
        ours = read_all(path)
    except CheckpointError:
        return
    assert ours == {name: bytes(fields["data"]) for name, fields in library(content).items()}


@given(length=st.integers(0, 80) | st.integers(0, 2**64 - 1))
def test_any_header_length_is_refused_or_right(path: Path, length: int) -> None:
    content = b'{"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}'
    path.write_bytes(length.to_bytes(8, "little") + content + b"abc")
    if length == len(content):
        assert read_all(path) == {"a": b"abc"}
    else:
        refused(path, "header|JSON")


def test_rows_are_read_in_the_dtype_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    matrix = np.arange(12, dtype=ml_dtypes.bfloat16).reshape(4, 3)
    path.write_bytes(save({"before": np.ones(5, np.int8), "matrix": matrix, "scalar": np.array(7, np.float32)}))
    tensors = read_tensors(path)
    assert tensors["matrix"].dtype == ir.DataType.BFLOAT16
    np.testing.assert_array_equal(tensors["matrix"].read(1, 3), matrix[1:3])
    assert tensors["scalar"].numpy() == 7


def test_a_system_that_reads_at_one_position_only_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"a": np.arange(5, dtype=np.int8), "b": np.arange(12, dtype=np.float32).reshape(4, 3)}))
    monkeypatch.delattr(os, "preadv")
    tensors = read_tensors(path)
    np.testing.assert_array_equal(tensors["b"].read(1, 3), [[3, 4, 5], [6, 7, 8]])
    np.testing.assert_array_equal(tensors["a"].numpy(), range(5))


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": tensor()}, bytes(7), "truncated: it has 7 bytes of data where 8 are declared"),
        ({"a": tensor()}, bytes(9), "1 bytes follow the last tensor"),
        ({"a": tensor(), "b": tensor(offsets=[4, 12])}, bytes(12), "'b' overlaps the tensor before it"),
        ({"a": tensor(), "b": tensor(offsets=[0, 8])}, bytes(8), "overlaps the tensor before it"),
        ({"a": tensor(), "b": tensor(offsets=[9, 17])}, bytes(17), "'b' leaves a gap before it"),
        ({"a": tensor(offsets=[1, 9])}, bytes(9), "'a' leaves a gap before it"),
        ({"a": tensor(offsets=[-8, 0])}, bytes(8), r"data_offsets \[-8, 0\]"),
        ({"a": tensor(offsets=[8, 0])}, bytes(8), r"data_offsets \[8, 0\]"),
        ({"a": tensor(offsets=[0, 8, 8])}, bytes(8), "data_offsets"),
        ({"a": tensor(offsets=[0, 8.0])}, bytes(8), "data_offsets"),
        ({"a": tensor(offsets=[False, 8])}, bytes(8), "data_offsets"),
        ({"a": tensor(shape=[3])}, bytes(8), r"'a' F32 \[3\] takes 12 bytes; it was given 8"),
        ({"a": tensor(shape=[-2])}, bytes(8), r"shape \[-2\]"),
        ({"a": tensor(shape=2)}, bytes(8), "shape 2"),
        ({"a": tensor(shape=[True, 2])}, bytes(8), "shape"),
        ({"a": tensor(shape=[0, 2**62, 2**62], offsets=[0, 0])}, b"", "shape"),
        ({"a": tensor(shape=[1] * 9, offsets=[0, 4])}, bytes(4), "at most 8 sizes"),
        ({"a": tensor(dtype="F4")}, bytes(8), "dtype 'F4'; known: BF16, BOOL, F16, F32,"),
        ({"a": tensor(dtype=["F32"])}, bytes(8), "dtype"),
        ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), "'a' must state exactly its dtype, shape and data_offsets"),
        ({"a": {**tensor(), "extra": 1}}, bytes(8), "must state exactly"),
        ({"a": [1]}, bytes(8), "must state exactly"),
        ({"": tensor()}, bytes(8), "'' is not a name"),
        ({"a\nb": tensor()}, bytes(8), r"'a\\nb' is not a name"),
        ({"a\ud800": tensor()}, bytes(8), "is not a name"),
        ({"a" * 1001: tensor()}, bytes(8), "is not a name"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        ({"__metadata__": "a"}, b"", "__metadata__"),
        (b'{"a": 1, "a": 2}', b"", "the key 'a' is there twice"),
        (b'{"a": NaN}', b"", "NaN is not a JSON number"),
        (b'{"a": 1e999}', b"", "the number 1e999 is out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", b"", "Exceeds the limit"),
        (b'{"a": ' + b"[" * 100_000, b"", "nested too deep"),
        (b'{"a": 1', b"", "not JSON"),
        (b'{"\xff": 1}', b"", "not UTF-8 at byte 2"),
        (b" {}", b"", "not a JSON object"),
        (b"[]", b"", "not a JSON object"),
        (b"", b"", "not a JSON object"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    refused(write(tmp_path / "model.safetensors", header, data), message)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, (100).to_bytes(8, "little") + b"{}", b"\xff" * 8])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path, "ends within its header")


def test_a_header_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(HEADER_BYTES + 9)
    refused(path, "16,777,217 bytes; more than 16,777,216 are not read")


def test_too_many_tensors_are_refused(tmp_path: Path) -> None:
    empty = json.dumps(tensor("U8", [0], [0, 0]))
    header = "{" + ",".join(f'"{i}":{empty}' for i in range(100_001)) + "}"
    refused(write(tmp_path / "model.safetensors", header.encode()), "100,001 tensors; more than 100,000 are not read")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number_is_found_when_it_is_read(tmp_path: Path, dtype: Any, value: float) -> None:
    path = tmp_path / "model.safetensors"
    matrix = np.full((6, 4), -1, dtype)
    matrix[4, 1] = value
    path.write_bytes(save({"w": matrix}))
    weight = read_tensors(path)["w"]
    weight.read(0, 4)
    for start in (0, 3, 4):
        with pytest.raises(CheckpointError, match=r"tensor 'w' holds NaN or infinity \(row 4\)"):
            weight.read(start, 6)


def rewrite(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-4] + b"new!")
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("change", [rewrite, lambda path: os.truncate(path, 100), lambda path: os.truncate(path, 1000)])
def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"w": np.ones((4, 4), np.float32)}))
    weight = read_tensors(path)["w"]
    weight.read(0, 1)
    change(path)
    with pytest.raises(CheckpointError, match="changed since its header was read"):
        weight.read(1, 2)


@pytest.mark.parametrize("change", [os.unlink, lambda path: path.with_name("w").replace(path)])
def test_a_file_whose_name_is_gone_is_read_to_its_end(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"w": np.ones((4, 4), np.float32)}))
    path.with_name("w").write_bytes(save({"w": np.zeros((4, 4), np.float32)}))
    weight = read_tensors(path)["w"]
    change(path)
    assert weight.read(1, 2).tolist() == [[1, 1, 1, 1]]


def test_a_file_is_closed_with_its_last_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"a": np.ones(4), "b": np.ones(4)}))
    tensors = read_tensors(path)
    last, descriptor = tensors.pop("b"), tensors.pop("a")._read.file._file.fileno()  # type: ignore[attr-defined]
    gc.collect()
    os.fstat(descriptor)
    del last
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
