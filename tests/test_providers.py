"""tests: execution providers: built in or of a vendor's library, on the device that is asked for, and on no other."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.ahead import check_compiler
from edgewise.bundle.manifest import CPU, Provider
from edgewise.bundle.probe import ask
from edgewise.bundle.read import Bundle
from edgewise.errors import MissingDevice, MissingExtra, OptionError, TargetError
from edgewise.names import check_options, check_session
from edgewise.profile import read_target
from edgewise.registry import registry
from edgewise.runtime.ort import open_graph

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


def test_a_compiler_is_looked_for_among_installed_packages_only() -> None:
    for name in ("no_such.package", "a.b", "numpy.linalg", ".."):
        absent = Provider("QNNExecutionProvider", library=name)
        target = replace(registry().get_target("qnn-x-elite"), providers=(absent,))
        with pytest.raises(MissingDevice, match=rf"is in the package {re.escape(name)}, which is not installed$"):
            check_compiler(target)


@pytest.mark.parametrize(
    ("provider", "option", "value"),
    [
        ("QNN", "backend_path", "./hostile.so"),
        ("QNN", "op_packages", "MatMul:./hostile.so:Interface:HTP"),
        ("QNN", "dump_qnn_ep_input_graph", "1"),
        ("QNN", "backend_type", "saver"),
        ("CUDA", "gpu_external_alloc", "4096"),
        ("CUDA", "user_compute_stream", "4096"),
        ("CoreML", "ModelCacheDirectory", "/"),
        ("OpenVINO", "cache_dir", "/"),
        ("OpenVINO", "load_config", "hostile.json"),
        ("OpenVINO", "load_config", '{"CPU": {"CACHE_DIR": "/"}}'),
        ("OpenVINO", "load_config", r'{"CPU": {"CACHE_\u0044IR": "."}}'),
        ("OpenVINO", "load_config", '{"CPU": {"CACHE_DIR": "."}, "CPU": {}}'),
        ("OpenVINO", "load_config", '{"CPU": {"NUM_STREAMS": "../model"}}'),
        ("OpenVINO", "load_config", '{"../model.xml": {}}'),
        ("OpenVINO", "load_config", '[["CPU", [["NUM_STREAMS", "1"]]]]'),
        ("OpenVINO", "load_config", '{"CPU": {"DEVICE_PROPERTIES": {"CPU": {"CACHE_DIR": "."}}}}'),
        ("OpenVINO", "precision", "../FP16"),
        ("CPU", "arena", "off"),
        ("VitisAI", "xclbin", "hostile.xclbin"),
        ("Somebody's", "trt_engine_cache_path", "/"),
        ("Somebody's", "ModelFolder", "/"),
        ("Somebody's", "gpu_external_alloc", "4096"),
        ("Somebody's", "model", "../model"),
    ],
)
def test_an_option_that_reaches_files_libraries_or_addresses_is_refused(
    tmp_path: Path, provider: str, option: str, value: str
) -> None:
    given = Provider(f"{provider}ExecutionProvider", {option: value}, library="onnxruntime_absent")
    with pytest.raises(TargetError, match=rf"^{provider}.*: a bundle may not set its option '{option}'") as caught:
        open_graph(graph(tmp_path, "Relu"), providers=(given,))
    assert "\n" not in str(caught.value)
    text = f'name = "a"\ndescription = "a"\n[[providers]]\nname = "{given.name}"\nlibrary = "onnxruntime_absent"\n'
    text += f"options = {{ {option} = '{value}' }}\n"
    with pytest.raises(TargetError, match=rf"^mine.toml: .*a bundle may not set its option '{option}'"):
        read_target(text, where="mine.toml", profiles=registry()._profile)


@pytest.mark.parametrize("name", registry().targets.names())
def test_options_of_installed_profiles_are_none_of_these(name: str) -> None:
    for provider in registry().find_target(name).providers:
        check_options(provider)


@pytest.mark.parametrize(
    ("provider", "option", "value"),
    [
        ("QNNExecutionProvider", "vtcm_mb", "8"),
        ("OpenVINOExecutionProvider", "load_config", '{"CPU": {"NUM_STREAMS": 1}, "GPU.0": {"NPU_TURBO": true}}'),
        ("NvTensorRTRTXExecutionProvider", "nv_profile_max_shapes", "input_ids:1x128,attention_mask:1x4096"),
        ("Somebody's", "threads", "2"),
    ],
)
def test_an_option_that_only_says_how_to_compute_may_be_set(provider: str, option: str, value: str) -> None:
    check_options(Provider(provider, {option: value}, library="somebodys"))


def test_of_a_provider_of_onnxruntime_nobody_here_knows_nothing_may_be_set() -> None:
    for name, library in (("ROCMExecutionProvider", ""), ("OpenVINOExecutionProvider.AUTO", "onnxruntime_ep_openvino")):
        with pytest.raises(OptionError, match=rf"{name}: a bundle may not set its option 'threads'; it may set: "):
            check_options(Provider(name, {"threads": "2"}, library=library))


def test_options_of_a_compiler_are_held_to_the_same(tmp_path: Path) -> None:
    text = 'name = "a"\ndescription = "a"\nextends = "qnn-x-elite"\n[compile]\noptions = { %s = "1" }\n'
    assert read_target(text % "vtcm_mb", where="mine.toml", profiles=registry()._profile).compile
    for option in ("op_packages", "saver", "model_name"):
        with pytest.raises(TargetError, match=rf"^mine\.toml: .*: a bundle may not set its option '{option}'"):
            read_target(text % option, where="mine.toml", profiles=registry()._profile)


@pytest.mark.parametrize(
    "entry",
    [
        "ep.context_file_path",
        "ep.context_enable",
        "ep.context.file",
        "ep.qnnexecutionprovider.op_packages",
        "ep.QNNExecutionProvider.backend_type",
        "ep.openvinoexecutionprovider.load_config",
        "ep.openvino.load_config",
        "ep.cuda.gpu_external_alloc",
        "ep.somebody.library",
        "ep.share_ep_contexts",
    ],
)
def test_a_session_entry_that_names_or_writes_a_file_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(TargetError, match=rf"a bundle may not set the session entry '{entry}'"):
        open_graph(tmp_path / "graph.onnx", entries={entry: "1"})
    with pytest.raises(OptionError, match=rf"a bundle may not set the session entry '{entry}'"):
        check_session([entry])


def test_a_build_does_not_take_what_is_refused_for_what_is_not_here(pycoder_bundle: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(pycoder_bundle.path, tmp_path / "hostile.edge")
    hostile = replace(pycoder_bundle.manifest, session={"ep.context_enable": "1"})
    (folder / "manifest.json").write_text(hostile.write())
    found = ask("graph", folder)
    assert found.problem
    assert "a bundle may not set the session entry 'ep.context_enable'" in found.problem


def test_a_session_entry_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"^session: no session entry is named 'session\.load_model_format'"):
        open_graph(graph(tmp_path, "Relu"), entries={"session.load_model_format": "ORT"})


def test_a_provider_that_this_onnxruntime_was_built_without_is_named_with_the_extra(tmp_path: Path) -> None:
    with pytest.raises(
        TargetError, match=r"has: .*CPUExecutionProvider.*; install it with: pip install 'edgewise\[gpu\]'$"
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
