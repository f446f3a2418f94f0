"""tests: what the writer writes is what the model held, to ONNX Runtime and to onnx_ir alike, or nothing at all."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from blake3 import blake3
from safetensors.numpy import save_file

from edgewise.checkpoint import Checkpoint
from edgewise.errors import BundleError, CheckpointError, GraphError
from edgewise.safetensors import read_tensors
from edgewise.tensors import Streamed, cast, constant, reshape, transpose
from edgewise.writer import write_model

FLOAT = ir.DataType.FLOAT


def model(**tensors: ir.TensorProtocol) -> ir.Model:
    """A model that gives each of its initializers back."""
    values, nodes = [], []
    for name, tensor in tensors.items():
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        values.append(ir.Value(name=name, shape=shape, type=kind, const_value=tensor))
        nodes.append(ir.Node("", "Identity", [values[-1]]))
        nodes[-1].outputs[0].name = f"{name}.out"
        nodes[-1].outputs[0].type, nodes[-1].outputs[0].shape = kind, shape
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph([], outputs, nodes=nodes, initializers=values, opset_imports={"": 23}, name="main")
    return ir.Model(graph, ir_version=10)


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run(path: Path) -> dict[str, np.ndarray]:
    """The outputs of a model, but for bfloat16, which ONNX Runtime does not give to NumPy."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs() if output.type != "tensor(bfloat16)"]
    return dict(zip(names, session.run(names, {}), strict=True))


def external(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and length of each initializer in the data file."""
    places = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        fields = {entry.key: entry.value for entry in tensor.external_data}
        if fields:
            assert fields["location"] == f"{path.name}_data"
            places[tensor.name] = (int(fields["offset"]), int(fields["length"]))
    return places


def test_every_tensor_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    wanted = {
        "small": array(3),
        "scalar": array(),
        "empty": array(0, 4),
        "large": array(700, 600),
        "turned": array(300, 400).T,
        "half": array(40, 30).astype(np.float16),
        "brain": array(40, 30).astype(ml_dtypes.bfloat16),
        "codes": np.arange(4000, dtype=np.uint8).reshape(2, 2000),
        "flags": array(2000) > 0,
    }
    tensors: dict[str, ir.TensorProtocol] = {name: constant(value) for name, value in wanted.items()}
    tensors["turned"] = transpose(constant(array(300, 400)))
    tensors["plain"] = ir.tensor(array(50, 50))
    wanted["plain"] = array(50, 50)
    write_model(model(**tensors), path)
    loaded = ir.load(path).graph.initializers
    for name, value in wanted.items():
        np.testing.assert_array_equal(loaded[name].const_value.numpy(), value)  # type: ignore[union-attr]
    results = run(path)
    for name in wanted.keys() - {"brain"}:
        np.testing.assert_array_equal(results[f"{name}.out"], wanted[name])
    onnx.checker.check_model(path)


def test_packed_tensors_keep_their_bytes(tmp_path: Path) -> None:
    codes = ir.Tensor(np.arange(-8, 8, dtype=np.int8).repeat(200).astype(ml_dtypes.int4), name="codes")
    write_model(model(codes=codes), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx_data").read_bytes() == codes.tobytes()


def test_the_demo_checkpoint_survives(pycoder: Path, tmp_path: Path) -> None:
    tensors = Checkpoint.open(pycoder).tensors
    path = tmp_path / "model.onnx"
    write_model(model(**{name: cast(tensor, FLOAT) for name, tensor in tensors.items()}), path)
    results = run(path)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(results[f"{name}.out"], tensor.numpy().astype(np.float32))


def test_small_tensors_stay_in_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_model(model(small=constant(array(256)), large=constant(array(257))), path)
    assert external(path) == {"large": (0, 257 * 4)}
    written = write_model(model(small=constant(array(256))), tmp_path / "small.onnx")
    assert [file.path for file in written] == [tmp_path / "small.onnx"]
    assert not (tmp_path / "small.onnx_data").exists()


def test_tensors_are_aligned_and_do_not_overlap(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    sizes = [300, 1 << 18, 301, 1001, (1 << 18) + 1]
    write_model(model(**{f"t{i}": constant(array(size)) for i, size in enumerate(sizes)}), path)
    end = 0
    for offset, length in sorted(external(path).values()):
        alignment = 4096 if length >= 1 << 20 else 64
        assert end <= offset < end + alignment
        assert offset % alignment == 0
        end = offset + length
    assert end == (tmp_path / "model.onnx_data").stat().st_size


def test_one_storage_is_written_once_in_every_shape(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_file({"w": array(64, 32)}, tmp_path / "w.safetensors")
    weight = read_tensors(tmp_path / "w.safetensors")["w"]
    plain = ir.tensor(array(500))
    write_model(
        model(a=weight, b=reshape(weight, (64, 4, 8)), c=transpose(weight), d=transpose(weight), e=plain, f=plain),
        path,
    )
    places = external(path)
    assert places["a"] == places["b"]
    assert places["c"] == places["d"]
    assert places["e"] == places["f"]
    assert len(set(places.values())) == 3
    results = run(path)
    np.testing.assert_array_equal(results["b.out"], array(64, 32).reshape(64, 4, 8))
    np.testing.assert_array_equal(results["d.out"], array(64, 32).T)


def test_tensors_of_a_branch_are_written_too(tmp_path: Path) -> None:
    then, other = model(w=constant(array(400))).graph, model(v=constant(array(400, seed=1))).graph
    whole = model(condition=constant(np.array(True)))
    attributes = [ir.AttrGraph("then_branch", then), ir.AttrGraph("else_branch", other)]
    node = ir.Node("", "If", [whole.graph.initializers["condition"]], attributes)
    node.outputs[0].name, node.outputs[0].type = "chosen", ir.TensorType(FLOAT)
    whole.graph.append(node)
    whole.graph.outputs.append(node.outputs[0])
    write_model(whole, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx_data").stat().st_size == 1600 * 2
    np.testing.assert_array_equal(run(tmp_path / "model.onnx")["chosen"], array(400))


def test_the_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    written = write_model(model(a=constant(array(300)), b=constant(array(1 << 19))), tmp_path / "model.onnx")
    assert [file.path.name for file in written] == ["model.onnx", "model.onnx_data"]
    for file in written:
        content = file.path.read_bytes()
        assert (file.bytes, file.blake3) == (len(content), blake3(content).hexdigest())


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    made = model(a=constant(array(300)), b=transpose(constant(array(80, 90))))
    (tmp_path / "other").mkdir()
    first, second = (write_model(made, tmp_path / name) for name in ("model.onnx", "other/model.onnx"))
    assert [file.blake3 for file in first] == [file.blake3 for file in second]


def test_the_model_stays_as_it_was(tmp_path: Path) -> None:
    made = model(a=constant(array(300)), b=constant(array(3)))
    before = {name: value.const_value for name, value in made.graph.initializers.items()}
    write_model(made, tmp_path / "model.onnx")
    with pytest.raises(BundleError):
        write_model(made, tmp_path / "model.onnx")
    assert all(made.graph.initializers[name].const_value is tensor for name, tensor in before.items())


def test_progress_counts_the_bytes_to_their_end(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    made = model(a=constant(array(3 << 20)), b=constant(array(300)))
    write_model(made, tmp_path / "model.onnx", progress=lambda *call: calls.append(call))
    done = [count for _, count, _ in calls]
    assert done == sorted(set(done))
    assert len(done) == 4
    assert {(stage, total) for stage, _, total in calls} == {("write", done[-1])}


def broken(dims: tuple[int, ...]) -> Streamed:
    """A tensor that gives half of the rows it is asked for."""
    return Streamed(dims, FLOAT, lambda start, stop: array((stop - start) // 2, *dims[1:]), name="w")


def test_a_tensor_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="tensor 'w' gave 2,000 bytes; its shape and type say 4,000"):
        write_model(model(a=constant(array(300)), w=broken((100, 10))), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_weight_that_is_no_number_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    save_file({"w": np.full((100, 10), np.nan, ml_dtypes.bfloat16)}, checkpoint)
    weight = transpose(cast(read_tensors(checkpoint)["w"], FLOAT))
    with pytest.raises(CheckpointError, match="tensor 'w' holds NaN or infinity"):
        write_model(model(a=constant(array(300)), w=weight), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == [checkpoint]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [10, 100_000, 5_000_000])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing_behind(tmp_path: Path, limit: int) -> None:
    made = model(a=constant(array(300)), b=constant(array(3 << 20)))
    with file_size_limit(limit), pytest.raises(BundleError, match="File too large; nothing is left of it"):
        write_model(made, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    def unread(start: int, stop: int) -> np.ndarray:
        raise AssertionError("read")

    huge = Streamed((1 << 20, 1 << 30), FLOAT, unread, name="w")
    with pytest.raises(BundleError, match="bytes left; the model takes 4,503,599,627,"):
        write_model(model(w=huge), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx_data"])
def test_a_file_that_exists_is_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(BundleError, match=f"{name} exists; it is not overwritten"):
        write_model(model(a=constant(array(300))), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be written: No such file or directory"):
        write_model(model(a=constant(array(300))), tmp_path / "absent" / "model.onnx")


MEASURE = """
import json, resource, sys
from pathlib import Path
from edgewise.safetensors import read_tensors
from edgewise.tensors import cast, transpose
from edgewise.writer import write_model
from tests.test_writer import FLOAT, constant, model
folder = Path(sys.argv[1])
weight = cast(read_tensors(folder / "w.safetensors")["w"], FLOAT)
peaks = []
for name, tensor in (("start", constant(weight.read(0, 9))), ("plain", weight), ("turned", transpose(weight))):
    write_model(model(w=tensor), folder / f"{name}.onnx")
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
print(json.dumps(peaks))
"""


def test_memory_follows_the_block_and_not_the_matrix(tmp_path: Path) -> None:
    matrix = np.zeros((50_000, 896), ml_dtypes.bfloat16)  # 90 MB, and 180 MB in float32
    save_file({"w": matrix}, tmp_path / "w.safetensors")
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    root = Path(__file__).parent.parent
    start, plain, turned = json.loads(subprocess.run(command, cwd=root, capture_output=True, check=True).stdout)
    assert plain - start < 20
    assert turned - start < 64
