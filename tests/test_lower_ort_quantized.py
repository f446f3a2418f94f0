"""tests: quantized weights, lowered: the numbers of the canonical graph's dequantized ones, and stored once."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import parity
from cases import CASES
from edgewise.graph import Roles, get_facts, mark, role
from edgewise.quantized import BlockQuantized
from edgewise.writer import write_model
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import Rule
from edgewise_targets.ort.lower import LowerOrt
from lowered import Lowered

FORMATS = {
    "int4, blocks wider than the matrix": Quantize(),
    "int4, block 32": Quantize(block_size=32),
    "int4, symmetric": Quantize(block_size=64, symmetric=True),
    "int4, v of another block": Quantize(block_size=32, rules=(Rule(role="attention.v", block_size=64),)),
    "int4, v kept": Quantize(block_size=32, rules=(Rule(role="attention.v", keep=True),)),
    "int4, embedding kept": Quantize(block_size=32, rules=(Rule(role="embedding", keep=True),)),
    "int8": Quantize(bits=8, block_size=32),
    "int2": Quantize(bits=2, block_size=32),
}
INT4 = [name for name in FORMATS if name.startswith("int4")]
# Tied and not, biased and not, with norms of heads, with rows of a fused matrix.
NAMES = ["gemma3", "llama", "llama biased", "llama tied", "phi3", "qwen2 full"]
SPARSE = ["mixtral", "qwen2_moe"]


def quantized(name: str, form: str, home: Path) -> ir.Model:
    return FORMATS[form](parity.export(name, home)).model


def logits(model: ir.Model, name: str, home: Path, folder: Path) -> parity.Logits:
    """Of the first row of a case, in chunks, from a canonical or a lowered graph."""
    path = folder / f"{model.graph.num_nodes()}.onnx"
    write_model(model, path)
    canonical = any(value.name == "position_ids" for value in model.graph.inputs)
    kind = parity.Canonical if canonical else Lowered
    session = kind(parity.load(path), get_facts(model), CASES[name].context)
    return parity.in_chunks(session, parity.oracle(name, home).tokens)[0]


@pytest.mark.parametrize("form", INT4)
@pytest.mark.parametrize("name", [*NAMES, *SPARSE])
def test_with_float_activations_logits_are_those_of_the_dequantized_weights(
    name: str, form: str, home: Path, tmp_path: Path
) -> None:
    expected = logits(quantized(name, form, home), name, home, tmp_path)
    lowered = LowerOrt(accuracy_level=0)(quantized(name, form, home)).model
    found = logits(lowered, name, home, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=0, atol=parity.TOLERANCE * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("form", ["int4, block 32", "int8", "int2"])
@pytest.mark.parametrize("name", NAMES)  # among experts, rounding chooses others where they are close: test_moe.py
def test_with_int8_activations_logits_stay_near(name: str, form: str, home: Path, tmp_path: Path) -> None:
    expected = logits(quantized(name, form, home), name, home, tmp_path)
    found = logits(LowerOrt()(quantized(name, form, home)).model, name, home, tmp_path)
    # Rounding to 1/127 of a block's largest value is off by 0.5 % a product, and there are 29 behind one another.
    assert np.square(found - expected).mean() < 0.06**2 * np.square(expected).mean()


@pytest.mark.parametrize("form", ["int4, block 32", "int4, symmetric", "int8", "int2"])
def test_a_product_rounds_its_activations_to_int8_and_loses_nothing_else(form: str, home: Path, tmp_path: Path) -> None:
    canonical = quantized("llama tied", form, home)
    table = canonical.graph.initializers["model.embed_tokens.weight"].const_value
    assert isinstance(table, BlockQuantized)
    model = LowerOrt()(canonical).model
    (hidden,) = (node.inputs[0] for node in model.graph if role(node) == "lm_head")
    assert hidden is not None
    hidden.shape, hidden.dtype = ir.Shape(["batch", "sequence", table.dims[1]]), ir.DataType.FLOAT
    model.graph.outputs.append(hidden)
    write_model(model, tmp_path / "model.onnx")
    tokens = np.array([[5, 6, 7, 8]])
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), **_no_past(model)}
    found, x = parity.load(tmp_path / "model.onnx").run(["logits", hidden.name], feeds)
    expected = _int8(x, table.form.block_size) @ table.read(0, table.dims[0]).T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def _int8(x: NDArray[np.float32], block_size: int) -> NDArray[np.float32]:
    blocks = x.reshape(*x.shape[:-1], -1, block_size)
    scales = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    rounded: NDArray[np.float32] = np.rint(blocks / scales) * scales
    return rounded.reshape(x.shape)


def _no_past(model: ir.Model) -> dict[str, NDArray[np.float32]]:
    facts = get_facts(model)
    return {
        f"past_key_values.{index}.{part}": np.zeros((1, a.kv_heads, 0, a.head_dim), np.float32)
        for index, a in enumerate(facts.attention)
        for part in ("key", "value")
    }


@pytest.mark.parametrize("form", ["int4, blocks wider than the matrix", "int4, block 32", "int4, symmetric"])
def test_a_tied_table_is_stored_once_in_one_range_of_the_file(form: str, home: Path, tmp_path: Path) -> None:
    write_model(LowerOrt()(quantized("llama tied", form, home)).model, tmp_path / "model.onnx")
    stored = {
        tensor.name: tensor for tensor in onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer
    }
    table, packed = (stored[f"model.embed_tokens.weight.{shape}"] for shape in ("table", "packed"))
    assert list(table.external_data) == list(packed.external_data)
    assert (len(table.dims), len(packed.dims)) == (2, 3)
    assert sum("embed_tokens" in name for name in stored) == (3 if FORMATS[form].symmetric else 4)


def test_queries_keys_and_values_are_one_product_where_their_formats_agree(home: Path) -> None:
    for form in FORMATS:
        roles = Roles.of(LowerOrt()(quantized("llama biased", form, home)).model)
        products = {part: len(roles.all(f"attention.{part}", 0)) for part in ("qkv", "q", "k", "v")}
        if " v " in form:
            assert products == {"qkv": 0, "q": 1, "k": 1, "v": 1}, form
        else:
            assert products == {"qkv": 1, "q": 0, "k": 0, "v": 0}, form


def test_biases_are_added_inside_the_products(home: Path) -> None:
    model = LowerOrt()(quantized("llama biased", "int4, block 32", home)).model
    assert [node.name for node in model.graph if node.op_type == "Add" and role(node)] == []


def test_an_lm_head_may_have_a_bias(home: Path, tmp_path: Path) -> None:
    def biased() -> ir.Model:
        model = parity.export("llama", home)
        head, vocabulary = Roles.of(model).one("lm_head"), get_facts(model).vocab_size
        bias = ir.Value(name="lm_head.bias", const_value=ir.tensor(np.linspace(-9, 9, vocabulary, dtype=np.float32)))
        model.graph.register_initializer(bias)
        add = ir.node("Add", [head.outputs[0], bias], name="lm_head.biased")
        add.outputs[0].name, head.outputs[0].name = "logits", "lm_head"
        add.outputs[0].type, add.outputs[0].shape = head.outputs[0].type, head.outputs[0].shape
        head.append(mark(add, "lm_head.bias"))
        model.graph.outputs[0] = add.outputs[0]
        return FORMATS["int4, block 32"](model).model

    expected = logits(biased(), "llama", home, tmp_path)
    found = logits(LowerOrt(accuracy_level=0)(biased()).model, "llama", home, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=0, atol=parity.TOLERANCE * np.abs(expected).max())
