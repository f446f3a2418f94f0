"""tests: which provider computes what: counted for the card, and no node on another one than was asked for."""

import json
import re
from copy import copy
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
from click.testing import CliRunner

from edgewise.bundle.manifest import CPU, Provider
from edgewise.bundle.read import Bundle, verify
from edgewise.cli.inspect import inspect
from edgewise.errors import MissingExtra, OptionError, TargetError
from edgewise.graph import mark
from edgewise.pipeline import build
from edgewise.placement import Node, Placement, judge, run
from edgewise.runtime.runner import Runner
from edgewise.target import Compile, Target
from fixed import FIXED

CUDA = Provider("CUDAExecutionProvider")
AZURE = Provider("AzureExecutionProvider")  # part of every onnxruntime, and takes no node of any graph
QNN = Provider(
    "QNNExecutionProvider",
    {"backend_type": "htp", "soc_model": "60", "htp_arch": "73"},
    library="onnxruntime_qnn",
    extra="qnn",
)


def on(target: Target, provider: Provider) -> Target:
    """The target with another provider, one that a profile may not name among them."""
    changed = copy(target)
    object.__setattr__(changed, "providers", (provider,))
    return changed


def test_the_card_counts_the_nodes_of_each_graph(pycoder_bundle: Bundle, two_graphs: Bundle) -> None:
    for bundle, graphs in ((pycoder_bundle, {"decoder"}), (two_graphs, {"prefill", "decode"})):
        placement = bundle.manifest.card["placement"]
        assert set(placement["nodes"]) == graphs
        for counts in placement["nodes"].values():
            assert set(counts) == {CPU.name}
            assert counts[CPU.name] > 50
        assert placement["by"].startswith("onnxruntime ")
        assert "fallen" not in placement


def test_people_read_of_the_placement_in_the_readme_and_by_inspect(pycoder_bundle: Bundle) -> None:
    count = pycoder_bundle.manifest.card["placement"]["nodes"]["decoder"][CPU.name]
    line = f"decoder: {count} nodes on CPUExecutionProvider (onnxruntime "
    assert f"\n- {line}" in (pycoder_bundle.path / "README.md").read_text()
    shown = CliRunner().invoke(inspect, [str(pycoder_bundle.path)])
    assert f"placement   {line}" in shown.output


def test_a_build_whose_nodes_fall_back_fails_and_names_them(pycoder: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        build(pycoder, target=on(FIXED, AZURE), output=tmp_path / "model.edge")
    line = str(caught.value)
    assert "nodes of the graph 'decode' fall back from AzureExecutionProvider to CPUExecutionProvider: " in line
    assert "com.microsoft:MatMulNBits 'model.layers.0.self_attn.q_proj'" in line
    assert line.endswith(" more; take another recipe, or let them: --allow-fallback")
    assert "\n" not in line
    assert not (tmp_path / "model.edge").exists()


def test_nodes_that_fall_back_are_named_before_anything_is_compiled(pycoder: Path, tmp_path: Path) -> None:
    compiled = copy(on(FIXED, AZURE))
    object.__setattr__(compiled, "compile", Compile())
    with pytest.raises(TargetError, match=r"nodes of the graph 'decode' fall back from Azure.*RMSNormalization 'model"):
        build(pycoder, target=compiled, output=tmp_path / "model.edge")
    assert not (tmp_path / "model.edge").exists()


def test_nodes_may_fall_back_where_that_is_allowed_and_the_card_names_them(pycoder: Path, tmp_path: Path) -> None:
    bundle = build(pycoder, target=on(FIXED, AZURE), output=tmp_path / "model.edge", allow_fallback=True)
    assert bundle.manifest.providers == (AZURE, CPU)
    assert "RMSNormalization 'model.layers.0.input_layernorm'" in bundle.manifest.card["placement"]["fallen"]["decode"]
    assert "; fell back: " in (bundle.path / "README.md").read_text()
    verify(bundle.path)
    with Runner.open(bundle.path, threads=1) as runner:
        assert runner.generate("def f(", max_tokens=2).tokens


def test_to_allow_what_is_not_looked_for_is_refused(pycoder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^allow_fallback is of no use without the load check"):
        build(pycoder, output=tmp_path / "model.edge", load_check=False, allow_fallback=True)


def test_a_bundle_for_a_provider_that_is_not_installed_is_built_and_says_so(
    pycoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    absent = Provider("QNNExecutionProvider", library="no_such_package", extra="qnn")
    bundle = build(pycoder, target=on(FIXED, absent), output=tmp_path / "model.edge")
    reason = "no_such_package is not installed; install it with: pip install 'edgewise[qnn]'"
    assert bundle.manifest.card["placement"] == {"not_run": reason}
    assert f"not run here: {reason}" in caplog.messages
    assert f"\n- not run where it was built: {reason}\n" in (bundle.path / "README.md").read_text()
    with pytest.raises(MissingExtra, match=re.escape(reason)):
        Runner.open(bundle.path)


def test_sizes_may_be_computed_beside_a_provider_of_onnxruntime_and_nothing_beside_a_library() -> None:
    nodes = (Node("size", "Shape", CPU.name, sizes=True), Node("product", "MatMul", "CUDAExecutionProvider"))
    placement = Placement({"decoder": nodes})
    built_in, library = Provider("CUDAExecutionProvider"), Provider("CUDAExecutionProvider", library="cuda_plugin")
    assert placement.fallen((built_in,)) == {}
    assert placement.fallen((library,)) == {"decoder": [nodes[0]]}
    assert placement.fallen((library, CPU)) == {}


def written() -> ir.Graph:
    """A residual stream, and lengths by the same operators."""
    floats = ir.TensorType(ir.DataType.FLOAT)
    x, y = (ir.Value(name=name, type=floats) for name in "xy")
    lengths = ir.Value(name="lengths", type=ir.TensorType(ir.DataType.INT64))
    shape = ir.node("Shape", [y], name="shape")
    add = ir.node("Add", [shape.outputs[0], lengths], name="longer")
    nodes = [
        mark(ir.node("Add", [x, y], name="residual"), "mlp.residual", 0),
        shape,
        add,
        ir.node("Cast", [add.outputs[0]], {"to": ir.DataType.INT32.value}, name="length"),
        ir.node("Cast", [add.outputs[0]], {"to": ir.DataType.FLOAT.value}, name="scale"),
        ir.node("Slice", [x, lengths, lengths], name="kept"),
        mark(ir.node("Gather", [lengths, lengths], name="order"), "mlp.down.order", 0),
        ir.node("Sub", [lengths, lengths], name="twice"),
        ir.node("Sub", [lengths, lengths], name="twice"),
    ]
    return ir.Graph([x, y, lengths], [nodes[0].outputs[0]], nodes=nodes)


@pytest.mark.parametrize("name", ["residual", "scale", "kept", "order"])
def test_a_node_with_a_role_or_with_floats_is_work_whatever_its_operator(name: str) -> None:
    (operator,) = (node.op_type for node in written() if node.name == name)
    nodes = judge(written(), [Node(name, operator, CPU.name), Node("shape", "Shape", CPU.name)])
    assert Placement({"decoder": nodes}).fallen((CUDA,)) == {"decoder": [nodes[0]]}


def test_a_node_without_a_role_that_computes_integers_of_integers_is_spared() -> None:
    nodes = judge(written(), [Node(n, o, CPU.name) for n, o in (("longer", "Add"), ("length", "Cast"))])
    assert Placement({"decoder": nodes}).fallen((CUDA,)) == {}


@pytest.mark.parametrize(
    ("name", "operator"),
    [("fused", "Add"), ("longer", "Sub"), ("twice", "Sub"), ("", "Cast"), ("InsertedCast", "Cast")],
)
def test_a_node_that_the_written_graph_does_not_have_is_work(name: str, operator: str) -> None:
    assert not judge(written(), [Node(name, operator, CPU.name)])[0].sizes
    assert judge(written(), [Node(name, "Shape", CPU.name)])[0].sizes


def test_of_a_bundle_beside_a_gpu_only_lengths_and_bounds_are_spared(pycoder_bundle: Bundle) -> None:
    nodes = run(pycoder_bundle.path, pycoder_bundle.manifest, "decoder")
    spared = {node.name.partition(".")[0] for node in nodes if node.sizes}
    assert {"attention_mask", "seqlens_k", "total_sequence_length"} <= spared
    assert spared <= {"attention_mask", "seqlens_k", "total_sequence_length", "logits_to_keep"}


def test_what_a_process_says_of_a_placement_is_read_back() -> None:
    placement = Placement({"decoder": (Node("a", "com.microsoft:MatMulNBits", CPU.name),)})
    assert Placement.read(placement.write()) == placement
    assert json.loads(Placement(not_run="why").write()) == {"graphs": {}, "not_run": "why"}


def test_every_node_of_graphs_of_fixed_lengths_runs_on_the_accelerator(pycoder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="needs the extra qnn")
    target = replace(on(FIXED, QNN), context=256)
    placement = build(pycoder, target=target, output=tmp_path / "model.edge").manifest.card["placement"]
    assert {graph: set(counts) for graph, counts in placement["nodes"].items()} == {
        "decode": {QNN.name},
        "prefill": {QNN.name},
    }
    assert "onnxruntime-qnn" in placement["by"]
