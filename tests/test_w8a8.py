"""tests: W8A8: int8 rows, activations rounded to uint8 token by token, products of integers."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import parity
from cases import CASES
from edgewise.bundle.manifest import Provider
from edgewise.errors import LoweringError
from edgewise.graph import IR_VERSION, OPSET, Roles, get_facts, linears, mark, role
from edgewise.integer import Int8Rows
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.quantized import BlockQuantized
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.runtime import exact
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.tensors import constant, storage, transpose
from edgewise.writer import write_model
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import Rule
from edgewise_plugins.w8a8 import W8A8
from edgewise_targets.ort.integer import IntegerProducts, is_scaled_product
from edgewise_targets.ort.lower import LowerOrt
from edgewise_targets.step import initializer, insert_before
from lowered import Lowered

# Biased and not, with norms of heads, with rows of a fused matrix.
NAMES = ["gemma3", "llama biased", "llama tied", "phi3"]

Floats = NDArray[np.float32]


def canonical(name: str, home: Path, *, rows: bool = False) -> ir.Model:
    """With `rows`, the embedding and the lm_head are as the layers; otherwise floats."""
    return W8A8(embedding=rows, head="rows")(parity.export(name, home)).model


def logits(model: ir.Model, name: str, home: Path, folder: Path) -> parity.Logits:
    """Of the first row of a case, in chunks, from a canonical or a lowered graph."""
    path = folder / f"{model.graph.num_nodes()}.onnx"
    write_model(model, path)
    kind = parity.Canonical if any(value.name == "position_ids" for value in model.graph.inputs) else Lowered
    session = kind(parity.load(path), get_facts(model), CASES[name].context)
    return parity.in_chunks(session, parity.oracle(name, home).tokens)[0]


def with_rounded_activations(model: ir.Model) -> ir.Model:
    """A canonical graph whose int8 products get activations that are rounded to 127 steps of each token's largest."""
    axis, steps, tiny = (
        initializer(model.graph, constant(np.asarray(value)), name)
        for name, value in {"axis": np.array([-1]), "steps": np.float32(127), "tiny": np.float32(1e-30)}.items()
    )
    for linear in list(linears(model)):
        is_product = linear.node.op_type == "MatMul"
        if is_product and isinstance(linear.matrix, BlockQuantized) and isinstance(linear.matrix.form, Int8Rows):
            node, x = linear.node, linear.node.inputs[0]
            (size,) = insert_before(node, "Abs", [x], [f"{node.name}.size"])
            (largest,) = insert_before(node, "ReduceMax", [size, axis], [f"{node.name}.largest"])
            (exact,) = insert_before(node, "Div", [largest, steps], [f"{node.name}.exact"])
            (scale,) = insert_before(node, "Max", [exact, tiny], [f"{node.name}.scale"])
            (divided,) = insert_before(node, "Div", [x, scale], [f"{node.name}.divided"])
            (rounded,) = insert_before(node, "Round", [divided], [f"{node.name}.rounded"])
            (near,) = insert_before(node, "Mul", [rounded, scale], [f"{node.name}.near"])
            node.replace_input_with(0, near)
    return model


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_float_graph_with_rounded_activations(
    name: str, rows: bool, home: Path, tmp_path: Path
) -> None:
    expected = logits(with_rounded_activations(canonical(name, home, rows=rows)), name, home, tmp_path)
    found = logits(LowerOrt()(canonical(name, home, rows=rows)).model, name, home, tmp_path)
    error = np.abs(found - expected) / np.abs(expected).max()
    # Sums in another order: where that takes an activation over the middle of two steps, it is off by one of 127.
    assert np.median(error) < 1e-6
    assert error.max() < 0.03


# In olmo2 products read the embedding as it is: steps of an int8 row, so that halves of the new steps are frequent.
@pytest.mark.parametrize(("name", "rows"), [*((name, False) for name in NAMES), ("llama tied", True), ("olmo2", True)])
def test_rounded_activations_leave_logits_near(name: str, rows: bool, home: Path, tmp_path: Path) -> None:
    expected = logits(canonical(name, home, rows=rows), name, home, tmp_path)
    found = logits(LowerOrt()(canonical(name, home, rows=rows)).model, name, home, tmp_path)
    # As much as is allowed to int8 activations in blocks, see test_lower_ort_quantized.py.
    assert np.square(found - expected).mean() < 0.06**2 * np.square(expected).mean()


def test_a_tied_table_of_rows_is_stored_once(home: Path, tmp_path: Path) -> None:
    model = LowerOrt()(canonical("llama tied", home, rows=True)).model
    vocabulary, hidden = get_facts(model).vocab_size, get_facts(model).hidden_size
    tables = [value for value in model.graph.initializers.values() if vocabulary in (value.shape or ())]
    assert sorted(str(value.dtype) for value in tables) == ["FLOAT", "FLOAT", "INT8"]
    (table,) = (value for value in tables if value.dtype == ir.DataType.INT8)
    assert {node.op_type for node in table.consumers()} == {"Gather", "Transpose"}
    assert len({storage(value.const_value) for value in tables if value.const_value}) == 2  # the scales are one, too
    assert (vocabulary, hidden) == tuple(table.shape or ())


@pytest.mark.parametrize("scale", [1.0, 1e-35, 0.0])
def test_a_product_is_what_numpy_computes_with_integers(scale: float, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((24, 40)).astype(np.float32)
    x = random.standard_normal((2, 7, 40)).astype(np.float32) * np.float32(scale)
    x[0, 3, 5] *= 1000  # the scale of one token is no matter of the others
    write_model(IntegerProducts()(W8A8()(product(weights)).model).model, tmp_path / "model.onnx")
    (found,) = parity.load(tmp_path / "model.onnx").run(None, {"x": x})
    matrix = next(linears(W8A8()(product(weights)).model)).matrix
    assert isinstance(matrix, BlockQuantized)
    stored = matrix.quantized(0, 24)
    steps = np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-28)) * (1 / np.float32(127))
    codes = np.rint(x / steps).astype(np.int64)
    sums = codes @ (stored.packed.reshape(24, 40).astype(np.int64) - 128).T
    np.testing.assert_array_equal(found, sums.astype(np.float32) * stored.scales[:, 0] * steps)


def product(weights: Floats) -> ir.Model:
    """A graph of one product, from "x" to "y"."""
    rows, columns = weights.shape
    x, y = (
        ir.Value(name=name, shape=ir.Shape(["b", "s", width]), type=ir.TensorType(ir.DataType.FLOAT))
        for name, width in (("x", columns), ("y", rows))
    )
    graph = ir.Graph([x], [y], nodes=[], opset_imports={"": OPSET}, name="product")
    weight = initializer(graph, transpose(constant(weights, name="weight")), "weight")
    graph.append(mark(ir.node("MatMul", [x, weight], outputs=[y], name="down"), "mlp.down", 0))
    return ir.Model(graph, ir_version=IR_VERSION)


def test_a_processor_without_vnni_gives_the_same_logits(
    pycoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build(pycoder, output=tmp_path / "w8a8.edge", recipe=Recipe((RecipeStep("w8a8"),)), load_check=False)
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(exact, "_CPUINFO", cpuinfo)
    scores, entries = [], []
    for flags in ("fma avx2 avx512_vnni", "fma avx2"):
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        entries.append(exact.exact_products())
        session = Session(Model.load(bundle.path, bundle.manifest, threads=1), capacity=64)
        scores.append(session.prefill(range(100, 164), scores=64))
    cpuinfo.unlink()  # a system that does not say
    assert entries == [{}, {"session.x64quantprecision": "1"}]
    assert exact.exact_products() == entries[1]
    if sys.platform == "linux" and "vnni" in Path("/proc/cpuinfo").read_text("utf-8"):
        np.testing.assert_array_equal(scores[0], scores[1])


def test_projections_that_share_an_input_share_its_codes(home: Path) -> None:
    model = LowerOrt()(canonical("llama", home)).model
    count = Counter(node.op_type for node in model.graph)
    layers = get_facts(model).layers
    assert count["QuantizeLinear"] == 4 * layers  # of queries, keys and values; of o; of gate and up; of down
    assert count["MatMulIntegerToFloat"] == 5 * layers


def test_scales_of_tokens_are_joined_with_what_follows(home: Path) -> None:
    model = LowerOrt()(canonical("llama", home)).model
    scaled = {role(node) for node in model.graph if node.op_type == "Mul" and is_scaled_product(node)}
    assert scaled == {"attention.qkv", "mlp.gate"}  # that of up goes to down, by way of the codes between them
    added = [role(node) for node in model.graph if node.op_type == "GatedAdd"]
    assert added == ["attention.residual", "mlp.residual"] * get_facts(model).layers


def test_a_target_without_gated_additions_gets_plain_ones(home: Path) -> None:
    model = canonical("llama", home)
    model.meta["edgewise"] = BuildContext(target=registry().get_target("web-wasm"))
    count = Counter(node.op_type for node in LowerOrt()(model).model.graph)
    assert count["GatedAdd"] == 0
    assert count["SkipSimplifiedLayerNormalization"] == 2 * get_facts(model).layers


def test_what_was_quantized_before_stays_as_it_is(home: Path) -> None:
    model = parity.export("llama tied", home)
    rules = (Rule(role="mlp.down", layers="1", bits=8, block_size=32), Rule(keep=True))
    model = W8A8()(Quantize(rules=rules)(model).model).model
    matrices = {(linear.role, linear.layer): linear.matrix for linear in linears(model)}
    forms = {key: str(matrix.form) for key, matrix in matrices.items() if isinstance(matrix, BlockQuantized)}
    assert forms["mlp.down", 1] == "int8, block 32, asymmetric"
    assert forms["mlp.down", 0] == "int8, a scale for each row, uint8 activations"
    assert forms["embedding", None] == forms["lm_head", None] == "int8, block 128, symmetric"


def test_a_target_that_has_no_integer_products_refuses_them(pycoder: Path) -> None:
    target = replace(registry().get_target("cpu-x64"), name="gpu", providers=(Provider("CUDAExecutionProvider"),))
    with pytest.raises(LoweringError, match="leave 'w8a8' and 'prefill' out"):
        plan_build(pycoder, target=target, recipe=Recipe((RecipeStep("w8a8"),)))
    with pytest.raises(LoweringError, match="leave 'w8a8' and 'prefill' out"):
        plan_build(pycoder, target=target, prefill="int8")


def test_lowering_twice_changes_nothing(home: Path) -> None:
    model = LowerOrt()(canonical("llama", home)).model
    assert not LowerOrt()(model).modified
    assert Roles.of(model).one("mlp.down", 0).op_type == "MatMulIntegerToFloat"
