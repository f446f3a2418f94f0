"""tests: a graph is held against a profile: each rule finds the graph that breaks it, and lets a sound one pass."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import parity
from edgewise.bundle.manifest import Provider
from edgewise.errors import GraphError, TargetError
from edgewise.graph import get_facts
from edgewise.lint import RULES, lint, refuse
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.registry import registry
from edgewise.steps import resolve
from edgewise.target import Lengths, Needs, Number, Numerics, Target
from edgewise_plugins.quantize import Quantize
from edgewise_targets.ort.lower import LowerOrt
from edgewise_targets.step import CONTRIB
from one_node import graph, product, value, weight

PYCODER = Path(__file__).parents[1] / "examples" / "pycoder"
CPU = "CPUExecutionProvider"
PROCESSORS = [name for name in registry().devices() if registry().get_target(name).providers[0].name == CPU]


def device(provider: str = CPU, *, needs: Needs | None = None, numerics: Numerics | None = None) -> Target:
    """A device that restricts nothing, but for what is given."""
    return Target("board", "a board", (Provider(provider),), needs=needs or Needs(), numerics=numerics or Numerics())


def attention(
    *, scales: tuple[str, str] | None = None, inputs: int = 9, outputs: int = 3, **attributes: Any
) -> ir.Model:
    """One GroupQueryAttention, its queries, keys and values in one input unless `packed` is 0."""
    packed = attributes.pop("packed", 1)
    past = ir.DataType.INT8 if scales else ir.DataType.FLOAT16
    half = ir.DataType.FLOAT16
    given: list[ir.Value | None] = [None] * inputs
    given[0] = value("query", half, (1, 1, 64))
    if not packed:
        given[1:3] = [value("key", half), value("value", half)]
    given[3:5] = [value("past_key_values.0.key", past), value("past_key_values.0.value", past)]
    if scales:
        made = {name: weight(name, np.ones(1, np.float32)) for name in scales}
        given[12:14] = [made[name] for name in scales]
    if inputs == 12:
        given[11] = weight("sinks", np.ones(4, np.float16))
    if inputs > 14:
        given[14:16] = [weight("q_norm", np.ones(16, np.float16)), weight("k_norm", np.ones(16, np.float16))]
    return graph("GroupQueryAttention", given, {"num_heads": 4, "kv_num_heads": 2, **attributes}, outputs=outputs)


def plain(matrix: np.ndarray, **options: Any) -> ir.Model:
    return graph("MatMul", [value("x"), weight("w", matrix)], domain="", **options)


def blocks(dtype: ir.DataType = ir.DataType.INT8) -> ir.Model:
    codes = value("codes", dtype, (64, 8))
    codes.const_value = ir.tensor(np.zeros((64, 8), np.int8), name="codes")
    return graph("DequantizeLinear", [codes, weight("s", np.ones((2, 8), np.float32))], {"block_size": 32}, domain="")


SMALL = Needs(graph_bytes=Number(1000, "its data sheet", "published"))
FLOATS = np.zeros((64, 8), np.float32)
PER_TENSOR: dict[str, Any] = {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
CUDA, DIRECTML, WEBGPU = "CUDAExecutionProvider", "DmlExecutionProvider", "WebGpuExecutionProvider"

BROKEN: list[tuple[str, ir.Model, Target, str]] = [
    ("opset", plain(FLOATS, opset=24), device(needs=Needs(opset=23)), "is of opset 24, and 23 .* with opset 23"),
    ("opset", plain(FLOATS, opset=27), device(), "is of opset 27, and 26 is the highest"),
    ("ir-version", plain(FLOATS, ir_version=14), device(), "is of IR version 14, and 13 .* `ir_version = 10`"),
    ("size", plain(FLOATS), device(needs=SMALL), "has 2,048 bytes of weights, and 1,000 are the most .* fewer bits"),
    ("operators", plain(FLOATS), device(needs=Needs(denied=("MatMul",))), "'gate': the device has no MatMul; lower"),
    ("operators", product(), device(needs=Needs(only=("MatMul",))), "no com.microsoft:MatMulNBits"),
    ("weights", product(), device(numerics=Numerics(weights=("int8",))), "no products with int4 weights; choose int8"),
    ("weights", plain(FLOATS), device(numerics=Numerics(weights=("int4", "float16"))), "float32 weights; choose"),
    ("weights", product(), device(numerics=Numerics(encodings=("qdq",))), "stored as matmulnbits, .* choose qdq"),
    ("weights", blocks(), device(numerics=Numerics(encodings=("matmulnbits",))), "stored as qdq"),
    ("weights", blocks(), device(numerics=Numerics(weights=("int4",))), "no products with int8 weights"),
    ("weights", product(), device(numerics=Numerics(block_sizes=(64, 128))), "blocks of 32 .* block_size 64 or 128"),
    ("weights", product(zero_points=np.zeros((8, 1), np.uint8)), device(numerics=Numerics(symmetric=True)), "zero"),
    ("slow", product(bits=3), device(), "no product with 3-bit weights; choose bits 2, 4 or 8"),
    ("slow", product(block_size=512), device(), "4-bit weights in blocks of 512 .* choose block_size 16, 32"),
    ("slow", product(bits=8, accuracy_level=0), device(), "8-bit .* choose accuracy_level 4, or bits 4"),
    ("slow", product(zero_points=np.ones((8, 2), np.float32)), device(), "float zero points .* choose whole ones"),
    ("slow", graph("QMoE", [value("x")] * 4, {"k": 2}), device(), "one scale a row .* in blocks"),
    ("slow", graph("MatMulBnb4", [value("x")]), device(), "NF4 and FP4 .* quantize to bits 4"),
    ("slow", graph("MatMulInteger", [value("x", ir.DataType.INT8)], domain=""), device(), "signed .* uint8"),
    ("attention", attention(outputs=1), device(CUDA), "a past and gives no present: .* make both"),
    ("attention", attention(inputs=16), device(), "norms of queries and keys inside .* head_norms = \"reshaped\""),
    ("attention", attention(inputs=16, packed=0), device(DIRECTML), "norms of queries and keys inside"),
    ("attention", attention(), device(DIRECTML), "packed in one input are not read; lower with packed = false"),
    ("attention", attention(packed=0, do_rotary=1), device(DIRECTML), "does not rotate .* rotary = \"before\""),
    ("attention", attention(packed=0, local_window_size=8), device(DIRECTML), "no window and no softcap"),
    ("attention", attention(packed=0, inputs=12), device(DIRECTML), "no sinks of heads"),
    ("attention", attention(scales=("a", "b"), inputs=14, **PER_TENSOR), device(CUDA), "one scale for keys and values"),
    ("attention", attention(scales=("a", "a"), inputs=14), device(CUDA), "one scale for keys and values"),
    ("attention", attention(scales=("a", "a"), inputs=14), device(WEBGPU), "leave quantize-cache out"),
    ("dtypes", product(), device(numerics=Numerics(activations=("float16",))), "computes in float32; .* float16"),
    ("dtypes", attention(), device(numerics=Numerics(cache=("float32", "int8"))), "are float16; .* float32 or int8"),
    ("dtypes", plain(FLOATS), device(numerics=Numerics(io=("float16", "int64"))), "'x': it is float32; choose float16"),
    ("dtypes", product(), device(needs=Needs(types={f"{CONTRIB}:MatMulNBits": ("float16",)})), "no kernel for float32"),
]  # fmt: skip

STATIC = device(needs=Needs(static=Lengths(prefill=128)))


@pytest.mark.parametrize(
    ("rule", "model", "target", "message"), BROKEN, ids=lambda case: case if isinstance(case, str) else ""
)
def test_a_graph_that_breaks_a_rule_is_found_with_a_fix(
    rule: str, model: ir.Model, target: Target, message: str
) -> None:
    found = [finding for finding in lint(model, target) if finding.rule == rule]
    assert found
    assert any(re.search(message, str(finding)) for finding in found), list(map(str, found))
    with pytest.raises(TargetError, match="target 'board': "):
        refuse(model, target)


@pytest.mark.parametrize(
    ("rule", "model", "target", "_message"), BROKEN, ids=lambda case: case if isinstance(case, str) else ""
)
def test_without_the_restriction_there_is_nothing_to_find(
    rule: str, model: ir.Model, target: Target, _message: str
) -> None:
    """For what a profile says: where it says nothing, the same graph has no such finding."""
    if rule in ("operators", "weights", "dtypes", "size"):
        assert rule not in {finding.rule for finding in lint(model, device(WEBGPU))}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, "sequence"), "its dimension 'sequence' is free; build it for the target: edgewise build CHECKPOINT"),
        ((1, 64), "it holds 64 tokens, and graphs of 128 and of 1 are compiled"),
        ((1, 128), None),
        ((1, 1), None),
    ],
)
def test_lengths_are_those_that_are_compiled(shape: tuple[int | str, ...], message: str | None) -> None:
    ids = value("input_ids", ir.DataType.INT64, shape)
    model = graph("Gather", [weight("table", FLOATS), ids], domain="")
    found = [finding for finding in lint(model, STATIC) if finding.rule == "lengths"]
    assert [finding.places for finding in found] == ([("'input_ids'",)] if message else [])
    assert message is None or message in str(found[0])


@pytest.mark.parametrize(("shape", "found"), [((1, 2, "past", 16), 0), ((1, "past", 2, 16), 2), ((2, "past", 16), 2)])
def test_keys_and_values_have_the_axes_that_a_device_wants(
    shape: tuple[int | str, ...], found: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = LowerOrt()(parity.export("phi3", tmp_path_factory.getbasetemp())).model
    heads = get_facts(model).attention[0].kv_heads
    for past in model.graph.inputs[2:4]:
        past.shape = ir.Shape([heads if dim == 2 else dim for dim in shape])
    problems = [finding for finding in lint(model, device(needs=Needs(layout="BNSH"))) if finding.rule == "layout"]
    assert sum(len(finding.places) for finding in problems) == found
    assert all("is not [batch, heads, positions, size]" in str(finding) for finding in problems)


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    assert {rule for rule, *_ in BROKEN} | {"lengths", "layout", "rings"} == RULES.keys()


def test_what_is_wrong_in_one_way_is_one_finding_that_names_the_first_places() -> None:
    model = product(bits=3)
    first = model.graph[0]
    for number in range(3):
        again = ir.node(
            "MatMulNBits", first.inputs, attributes=first.attributes.copy(), domain=CONTRIB, name=f"n{number}"
        )
        model.graph.append(again)
    (found,) = lint(model, device())
    assert found.places == ("'gate'", "'n0'", "'n1'", "'n2'")
    assert str(found).startswith("'gate', 'n0' and 2 more: ONNX Runtime has no product")


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("block_size", [0, 32])
def test_what_is_lowered_for_a_processor_is_fit_for_it(
    name: str, block_size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, target = parity.export("qwen3", tmp_path_factory.getbasetemp()), registry().get_target(name)
    model.meta["edgewise"] = BuildContext(target=target)
    if block_size:
        Quantize(block_size=32, symmetric=True)(model)
    for step in resolve(target.lowering, where=name):
        step(model)
    assert lint(model, target) == ()


def test_a_build_refuses_what_its_target_does_not_take(tmp_path: Path) -> None:
    target = dataclasses.replace(registry().get_target("cpu-x64"), numerics=Numerics(weights=("int8",)))
    with pytest.raises(
        TargetError, match=r"target 'cpu-x64': 'hidden.0', .* no products with int4 weights; choose int8"
    ):
        build(PYCODER, target=target, output=tmp_path / "a.edge")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("op_type", ["FusedMatMul", "MatMulIntegerToFloat", "MoE"])
def test_a_node_without_its_inputs_is_one_line(op_type: str) -> None:
    with pytest.raises(GraphError, match=r"^the graph is damaged: rule '\w+' cannot read one of its nodes: [^\n]*$"):
        lint(graph(op_type, []), device())
