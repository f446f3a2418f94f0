"""tests: execution providers: built in or of a vendor's library, on the device that is asked for, and on no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.bundle.manifest import Provider
from edgewise.errors import MissingExtra, TargetError
from edgewise.runtime.ort import open_graph
from edgewise.runtime.providers import CPU

QNN = Provider(
    "QNNExecutionProvider",
    {"backend_type": "htp", "soc_model": "60", "htp_arch": "73"},
    library="onnxruntime_qnn",
    extra="qnn",
)
NEEDS_QNN = "onnxruntime_qnn"


def graph(folder: Path, last: str) -> Path:
    """A product with itself, and then what the last operator makes of it."""
    nodes = [helper.make_node("MatMul", ["x", "x"], ["product"]), helper.make_node(last, ["product"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 8])]
    kind = TensorProto.INT64 if last == "NonZero" else TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    path = folder / f"{last}.onnx"
    made = helper.make_graph(nodes, "graph", inputs, outputs)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_a_package_that_is_not_installed_is_named_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    absent = Provider("SomeExecutionProvider", library="no_such_package", extra="qnn")
    with pytest.raises(MissingExtra, match=r"^no_such_package is not installed; .* pip install 'edgewise\[qnn\]'$"):
        open_graph(graph(tmp_path, "Relu"), providers=(absent,))
    with pytest.raises(TargetError, match=r"SomeExecutionProvider is in the package no_such_package, which is not"):
        open_graph(graph(tmp_path, "Relu"), providers=(replace(absent, extra=""),))


def test_nothing_is_imported_for_a_bundle_but_packages_that_were_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("hostile", "antigravity"):
        with pytest.raises(TargetError, match=rf"is in the package {name}, which is not installed"):
            open_graph(graph(tmp_path, "Relu"), providers=(Provider("SomeExecutionProvider", library=name),))
    with pytest.raises(TargetError, match=r"the package numpy has no library of Some.*: no get_library_path\(\)"):
        open_graph(graph(tmp_path, "Relu"), providers=(Provider("SomeExecutionProvider", library="numpy"),))


@pytest.mark.parametrize("option", ["backend_path", "trt_engine_cache_path", "cache_dir", "trt_extra_plugin_lib_paths"])
def test_an_option_that_names_a_file_is_refused(tmp_path: Path, option: str) -> None:
    given = Provider("QNNExecutionProvider", {option: "./hostile.so"}, library="onnxruntime_qnn", extra="qnn")
    with pytest.raises(TargetError, match=rf"^QNN.*: a bundle may not set its option '{option}', which names a file$"):
        open_graph(graph(tmp_path, "Relu"), providers=(given,))


def test_a_session_entry_that_names_a_file_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    entries = {"ep.context_enable": "1", "ep.context_file_path": str(victim)}
    with pytest.raises(TargetError, match=r"a bundle may not set the session entry 'ep\.context_file_path'"):
        open_graph(graph(tmp_path, "Relu"), entries=entries)
    assert not victim.exists()


def test_a_provider_that_this_onnxruntime_was_built_without_is_named_with_the_extra(tmp_path: Path) -> None:
    with pytest.raises(
        TargetError, match=r"has: .*CPUExecutionProvider; install it with: pip install 'edgewise\[gpu\]'$"
    ):
        open_graph(graph(tmp_path, "Relu"), providers=(Provider("CoreMLExecutionProvider", extra="gpu"),))


def test_a_device_that_is_not_there_is_an_error_that_says_which_are(tmp_path: Path) -> None:
    pytest.importorskip(NEEDS_QNN, reason="needs the extra qnn")
    with pytest.raises(TargetError, match=r"QNNExecutionProvider finds no 'gpu' device here .*; it finds: cpu$"):
        open_graph(graph(tmp_path, "Relu"), providers=(replace(QNN, device="gpu"),))


def test_a_library_runs_a_graph_and_is_registered_once(tmp_path: Path) -> None:
    pytest.importorskip(NEEDS_QNN, reason="needs the extra qnn")
    x = np.eye(8, dtype=np.float32) - 0.5
    for _ in range(2):
        session = open_graph(graph(tmp_path, "Relu"), providers=(QNN,))
        assert session.get_providers()[0] == QNN.name
        np.testing.assert_allclose(session.run(None, {"x": x})[0], np.maximum(x @ x, 0), atol=1e-3)  # float16


def test_what_a_library_does_not_take_is_refused_unless_the_cpu_is_asked_for_too(tmp_path: Path) -> None:
    pytest.importorskip(NEEDS_QNN, reason="needs the extra qnn")
    with pytest.raises(TargetError, match=r"NonZero\.onnx: QNNExecutionProvider does not take all of its nodes"):
        open_graph(graph(tmp_path, "NonZero"), providers=(QNN,))
    session = open_graph(graph(tmp_path, "NonZero"), providers=(QNN, CPU))
    found = session.run(None, {"x": np.eye(8, dtype=np.float32)})[0]
    assert found.tolist() == [list(range(8))] * 2
