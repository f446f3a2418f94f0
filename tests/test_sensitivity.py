"""tests: what single changes cost: weights one at a time, layers one at a time, activations in int8."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from edgewise.calibration import walk as walking
from edgewise.checkpoint import Checkpoint
from edgewise.errors import GraphError, OptionError
from edgewise.exporters import export_graph
from edgewise.graph import Linear, linears
from edgewise.passes import BuildContext
from edgewise.quality.activations import activation_errors, rounded
from edgewise.quality.compare import compare
from edgewise.quality.layers import layer_costs
from edgewise.quality.sensitivity import sensitivity
from edgewise.quantized import BlockQuantized, Format
from edgewise.recipe import RecipeStep
from edgewise.steps import apply, resolve
from edgewise.tensors import Streamed, constant, streamed
from edgewise.text.tokenizer import Tokenizer
from edgewise_plugins.quantize.blocks import quantize_rows
from edgewise_plugins.quantize.nearest import nearest

TEXT = "def add(a, b):\n    return a + b\n\n\nclass Queue:\n    def __init__(self):\n        self.items = []\n" * 8


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def tokens(pycoder: Path) -> np.ndarray:
    """Two sequences of 48 tokens."""
    return np.array(Tokenizer.load(pycoder).encode(TEXT)[:96]).reshape(2, 48)


def floats(pycoder: Path) -> ir.Model:
    return export_graph(Checkpoint.open(pycoder))


def quantized(model: ir.Model, **options: object) -> ir.Model:
    """A copy of a model with its weights in few bits."""
    step = RecipeStep("quantize", {"bits": 4, **options})
    return apply(model.clone(), resolve([step], where="recipe"), BuildContext(), error=OptionError)


def test_what_a_change_costs_alone_is_what_the_changed_model_costs(pycoder: Path, tokens: np.ndarray) -> None:
    model = floats(pycoder)
    few = quantized(model, bits=2)
    names = [linear.name for linear in linears(model)]
    parts = ("embed_tokens", "layers.0.self_attn.q", "layers.3.mlp.down", "layers.3.mlp.up", "layers.5.self_attn.o")
    chosen = [next(name for name in names if part in name) for part in parts]  # the first is the lm_head's too
    groups = {name: [name] for name in chosen} | {"two layers": chosen[1:3], "layer and head": [chosen[0], chosen[4]]}
    changes = {
        group: {name: streamed(few.graph.initializers[name].const_value) for name in members}
        for group, members in groups.items()
    }
    norm = streamed(model.graph.initializers["model.norm.weight"].const_value).read(0, 256)
    changes["final norm"] = {"model.norm.weight": constant(norm * np.linspace(0.9, 1.1, 256, dtype=np.float32))}
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    reports: list[tuple[int, int]] = []
    found = sensitivity(model, changes, tokens, progress=lambda stage, done, total: reports.append((done, total)))
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == before
    for group, change in changes.items():
        changed = model.clone()
        for name, tensor in change.items():
            changed.graph.initializers[name].const_value = tensor
        assert_allclose(found[group], compare(changed, model, tokens).mean_kld, rtol=1e-4, err_msg=group)
    assert list(found) == list(changes)
    assert reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1]


def test_a_change_of_what_is_not_there_is_refused(pycoder: Path, tokens: np.ndarray) -> None:
    model = floats(pycoder)
    norm, zeros = "model.norm.weight", Streamed((3,), ir.DataType.FLOAT, lambda a, b: np.zeros(b - a, np.float32))
    with pytest.raises(GraphError, match="no weight 'wheel' to change"):
        sensitivity(model, {"x": {"wheel": zeros}}, tokens)
    with pytest.raises(GraphError, match=rf"'{norm}' has the shape \[256\]; its change has \[3\]"):
        sensitivity(model, {"x": {norm: zeros}}, tokens)


def test_the_layer_that_is_hurt_is_found(pycoder: Path, tokens: np.ndarray) -> None:
    model = floats(pycoder)
    rules = [{"layers": "2", "bits": 2}, {"role": "embedding", "keep": True}]
    hurt = quantized(model, bits=8, rules=rules)
    costs = layer_costs(model, hurt, tokens)
    assert next(iter(costs)) == "layer 2"
    assert set(costs) == {f"layer {layer}" for layer in range(6)}
    assert costs["layer 2"] > 10 * list(costs.values())[1]
    assert_allclose(sum(costs.values()), compare(hurt, model, tokens).mean_kld, rtol=0.2)


@pytest.mark.parametrize("form", [Format(4, 32, False), Format(4, 128, True), Format(8, 128, False)], ids=str)
def test_the_error_of_int8_activations_is_that_of_the_operator(form: Format) -> None:
    rng = np.random.default_rng(0)
    weights, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 256), (20, 256)))
    x[:, 5] *= 60  # a massive channel
    x[3, :128] = 0
    matrix = BlockQuantized((64, 256), form, partial(quantize_rows, nearest, constant(weights), form))
    floats = matrix.read(0, 64)
    exact = x @ floats.T
    assert_allclose(product(matrix, x), rounded(x, form.block_size) @ floats.T, atol=1e-5 * float(np.abs(exact).max()))
    assert np.linalg.norm(product(matrix, x) - exact) > 0.01 * np.linalg.norm(exact)


def product(matrix: BlockQuantized, x: np.ndarray) -> np.ndarray:
    """By ONNX Runtime's MatMulNBits at accuracy level 4."""
    (rows, columns), form = matrix.dims, matrix.form
    constants = {"codes": matrix.packed.read(0, rows), "scales": matrix.scales.read(0, rows).reshape(-1)}
    if matrix.zero_points is not None:
        constants["zero_points"] = matrix.zero_points.read(0, rows).reshape(-1)
    node = helper.make_node(
        "MatMulNBits",
        ["x", *constants],
        ["y"],
        domain="com.microsoft",
        K=columns,
        N=rows,
        bits=form.bits,
        block_size=form.block_size,
        accuracy_level=4,
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (len(x), rows))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def test_errors_of_activations_are_those_of_whole_products(pycoder: Path, tokens: np.ndarray, tmp_path: Path) -> None:
    model = quantized(floats(pycoder))
    found = activation_errors(model, tokens)
    assert set(found) == {linear.name for linear in linears(model)}
    assert list(found.values()) == sorted(found.values(), reverse=True)

    def check(group: Sequence[Linear], x: np.ndarray) -> None:
        for linear in group:
            rows, columns = linear.matrix.dims
            weights = linear.matrix.read(0, rows).T
            steps = np.abs(x).reshape(len(x), -1, 128).max(axis=2).repeat(128, axis=1)[:, :columns] / 127
            wrong = np.round(x / steps) * steps @ weights - x @ weights
            right = x @ weights
            varying = np.linalg.norm(right - right.mean(axis=0))
            assert_allclose(found[linear.name], np.linalg.norm(wrong) / varying, rtol=1e-3)

    walking.Walk(model, tokens, folder=tmp_path).advance(0, check)
