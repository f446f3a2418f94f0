"""tests: the pass quantize: what it does to a graph, and which matrix its rules give which format."""

import logging
import os
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.errors import GraphError, OptionError
from edgewise.graph import linears, mark
from edgewise.options import parse, record
from edgewise.quantized import BlockQuantized, Format
from edgewise.recipe import read_steps
from edgewise.registry import registry
from edgewise.tensors import Streamed, constant, transpose
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import Choice, Rule

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

onnxruntime.disable_telemetry_events()

INT4 = Choice(Format(4, 128, False))
INT8 = Choice(Format(8, 128, False))
LAYERS = 4
ROLES = ("attention.q", "attention.v", "mlp.down")
Q, V, DOWN = ROLES
EVERY_LAYER = range(LAYERS)
EMBEDDING = "model.embed_tokens.weight"


def weight_name(layer: int, role: str) -> str:
    block, projection = role.split(".")
    return f"model.layers.{layer}.{block}.{projection}_proj.weight"


def model(*, tied: bool = True, hidden: int = 48, vocabulary: int = 37) -> ir.Model:
    """A stack of matrix products between an embedding and a lm_head, with the roles of a decoder."""
    rng = np.random.default_rng(5)

    def initializer(name: str, shape: tuple[int, int], *, turned: bool) -> ir.Value:
        stored = constant((rng.normal(size=shape) / shape[1] ** 0.5).astype(np.float32), name=name)
        tensor = transpose(stored) if turned else stored
        value = ir.Value(name=name, shape=ir.Shape(tensor.dims), type=ir.TensorType(tensor.dtype), const_value=tensor)
        values.append(value)
        return value

    values: list[ir.Value] = []
    ids = ir.Value(name="input_ids", shape=ir.Shape(["B", "S"]), type=ir.TensorType(ir.DataType.INT64))
    table = initializer(EMBEDDING, (vocabulary, hidden), turned=False)
    nodes = [mark(ir.node("Gather", [table, ids]), "embedding")]
    for layer in range(LAYERS):
        for role in ROLES:
            weight = initializer(weight_name(layer, role), (hidden, hidden), turned=True)
            nodes.append(mark(ir.node("MatMul", [nodes[-1].outputs[0], weight]), role, layer))
    if tied:
        nodes.append(mark(ir.node("Transpose", [table], {"perm": [1, 0]}), "lm_head.weight"))
        head = nodes[-1].outputs[0]
    else:
        head = initializer("lm_head.weight", (vocabulary, hidden), turned=True)
    stream = [node for node in nodes if node.op_type != "Transpose"][-1].outputs[0]
    nodes.append(mark(ir.node("MatMul", [stream, head]), "lm_head"))
    logits = nodes[-1].outputs[0]
    logits.name, logits.type = "logits", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([ids], [logits], nodes=nodes, initializers=values, opset_imports={"": 23}, name="decoder")
    return ir.Model(graph, ir_version=10)


def stored(model: ir.Model) -> dict[str, Format | None]:
    """What each weight of a model is by now."""
    return {
        linear.name: linear.matrix.form if isinstance(linear.matrix, BlockQuantized) else None
        for linear in linears(model)
    }


def logits(model: ir.Model, ids: np.ndarray) -> np.ndarray:
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input_ids": ids})[0])


@pytest.mark.parametrize("tied", [True, False])
def test_every_matrix_is_quantized_and_the_graph_runs_on_the_dequantized_weights(tied: bool) -> None:
    graph = model(tied=tied)
    names = {linear.name for linear in linears(graph)}
    Quantize(block_size=32)(graph)
    assert stored(graph) == dict.fromkeys(names, Format(4, 32, False))
    ids = np.array([[0, 36, 5]], np.int64)
    expected = np.empty(0)
    for linear in linears(graph):
        matrix = linear.matrix.numpy()
        expected = matrix[ids] if linear.role == "embedding" else expected @ matrix.T
    np.testing.assert_allclose(logits(graph, ids), expected, rtol=1e-4, atol=1e-5)


def test_tied_embedding_and_lm_head_are_one_quantized_matrix() -> None:
    graph = model()
    Quantize()(graph)
    embedding, *_, head = linears(graph)
    assert (embedding.role, head.role) == ("embedding", "lm_head")
    assert isinstance(embedding.matrix, BlockQuantized)
    assert embedding.matrix is head.matrix


def test_shapes_and_names_stay() -> None:
    graph, before = model(), model()
    Quantize()(graph)
    for name, value in graph.graph.initializers.items():
        assert value.const_value is not None
        assert (value.const_value.name, value.shape, value.dtype) == (name, before.graph.initializers[name].shape, 1)


def test_formats_are_known_before_anything_is_read() -> None:
    graph = model()

    def refuse(start: int, stop: int) -> np.ndarray:
        raise AssertionError("a weight was read")

    for value in graph.graph.initializers.values():
        assert value.shape is not None
        unread = Streamed([int(size) for size in value.shape.numpy()], ir.DataType.FLOAT, refuse, name=value.name)
        value.const_value = unread
    step = Quantize(rules=(Rule(role="mlp.*", bits=8), Rule(role="attention.q", layers="0,2-3", keep=True)))
    planned = step.choices(graph)
    step(graph)
    assert {name: choice and choice.form for name, choice in planned.items()} == stored(graph)
    assert planned[weight_name(1, DOWN)] == INT8
    assert planned[weight_name(2, Q)] is None


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"role": "mlp.*", "bits": 8}], {weight_name(layer, DOWN): INT8 for layer in EVERY_LAYER}),
        (
            [{"layers": "1-2", "block_size": 32}],
            {weight_name(layer, role): Choice(Format(4, 32, False)) for layer in (1, 2) for role in ROLES},
        ),
        (
            [{"layers": "0, 3", "role": V, "symmetric": True}],
            {weight_name(layer, V): Choice(Format(4, 128, True)) for layer in (0, 3)},
        ),
        ([{"weight": "*.1.*.v_proj.*", "keep": True}], {weight_name(1, V): None}),
        ([{"role": "lm_head", "bits": 8}], {EMBEDDING: INT8}),
        ([{"role": "embedding", "keep": True}], {EMBEDDING: None}),
        ([{"role": "embedding", "method": "grid"}], {EMBEDDING: Choice(Format(4, 128, False), "grid")}),
        ([{"role": "[el]*", "bits": 8}], {EMBEDDING: INT8}),
    ],
)
def test_a_rule_changes_what_it_matches(rules: list[dict[str, Any]], expected: Mapping[str, Choice | None]) -> None:
    choices = parse(Quantize, {"rules": rules}, what="quantize").choices(model())
    assert {name: choice for name, choice in choices.items() if choice != INT4} == expected


def test_the_first_rule_that_matches_wins() -> None:
    default, eight = Rule(role=Q, layers="0"), Rule(layers="0-1", bits=8)
    choices = Quantize(rules=(default, eight, Rule(role=Q, keep=True))).choices(model())
    by_layer = [choices[weight_name(layer, Q)] for layer in EVERY_LAYER]
    assert by_layer == [INT4, INT8, None, None]


def test_options_come_back_from_their_record() -> None:
    step = Quantize(bits=8, rules=(Rule(role="lm_head", keep=True), Rule(layers="0-3", block_size=32)))
    assert record(step) == {
        "bits": 8,
        "rules": [{"role": "lm_head", "keep": True}, {"layers": "0-3", "block_size": 32}],
    }
    assert parse(Quantize, record(step), what="quantize") == step


def test_the_recipe_in_the_docstring_is_one() -> None:
    indented = [line for line in str(Quantize.__doc__).splitlines() if line.startswith(" " * 8)]
    (step,) = read_steps(tomllib.loads("\n".join(indented))["step"], where="docstring")
    assert step.name == Quantize.name
    assert len(parse(Quantize, step.options, what="docstring").rules) == 3


MEANINGLESS: list[tuple[dict[str, Any], str]] = [
    ({"bits": 5}, "bits: 5 is not one of 2, 4, 8"),
    ({"bits": "4"}, "bits: '4' is not one of 2, 4, 8"),
    ({"block_size": 100}, "block_size: 100 is not one of 32, 64, 128"),
    ({"symmetric": 1}, "symmetric: expected true or false, got 1"),
    ({"blocksize": 32}, "no option is named 'blocksize'; did you mean 'block_size'?"),
    ({"rules": [{"bits": 3}]}, "rules[0]: bits: 3 is not one of 2, 4, 8"),
    ({"rules": [{"rol": "lm_head"}]}, "rules[0]: no option is named 'rol'; did you mean 'role'?"),
    ({"rules": [{"layers": "3-1"}]}, "rules[0]: layers '3-1': expected numbers and ranges, as in '0-3,20'"),
    ({"rules": [{"layers": "a"}]}, "rules[0]: layers 'a': expected numbers and ranges, as in '0-3,20'"),
    (
        {"rules": [{"keep": True, "bits": 8}]},
        "rules[0]: keep = true leaves a matrix as it is: it cannot also set bits",
    ),
    (
        {"rules": [{"role": "mlp.dwn"}]},
        "rule 1 (role = 'mlp.dwn') matches no matrix of this model; "
        "roles: attention.q, attention.v, embedding, lm_head, mlp.down; layers: 0-3",
    ),
    (
        {"rules": [{"role": "mlp.*"}, {"role": "mlp.down", "layers": "2"}]},
        "rule 2 (role = 'mlp.down', layers = '2') is never reached: rules before it match all that it matches",
    ),
    (
        {"rules": [{"role": "lm_head", "bits": 8}, {"role": "embedding", "keep": True}]},
        "'model.embed_tokens.weight' is one matrix under two roles, and its rules disagree: "
        "embedding (rule 2) is to be kept and lm_head (rule 1) is to be int8, block 128, asymmetric, nearest",
    ),
]


@pytest.mark.parametrize(("options", "message"), MEANINGLESS)
def test_an_option_without_meaning_is_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Quantize, options, what="step 1, quantize")(model())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_checked_in_python_too() -> None:
    with pytest.raises(OptionError, match="bits: 5 is not one of 2, 4, 8"):
        Quantize(bits=5)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="block_size: 16 is not one of"):
        Rule(block_size=16)  # type: ignore[arg-type]


def test_a_model_is_quantized_once() -> None:
    graph = model()
    Quantize()(graph)
    with pytest.raises(GraphError, match="quantized already"):
        Quantize(bits=8)(graph)


def test_a_graph_without_roles_is_refused() -> None:
    graph = model()
    for node in graph.graph:
        node.metadata_props.clear()
    with pytest.raises(GraphError, match="no weights to quantize"):
        Quantize()(graph)


def test_the_pass_says_what_it_did(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="edgewise_plugins"):
        Quantize(rules=(Rule(role="lm_head", keep=True),))(model())
    assert sorted(caplog.messages) == [
        "int4, block 128, asymmetric, nearest: 12 of 13 matrices",
        "kept as it is: 1 of 13 matrices",
    ]


def test_a_recipe_finds_the_pass_by_its_name() -> None:
    assert registry().passes.get("quantize") is Quantize
