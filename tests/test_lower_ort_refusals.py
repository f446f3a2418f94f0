"""tests: what the lowering cannot express, or only slowly, is refused by name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import parity
import tiny
from edgewise.checkpoint import Checkpoint
from edgewise.errors import GraphError, LoweringError
from edgewise.facts import Attention
from edgewise.graph import Roles, mark
from edgewise_exporters.decoder import Decoder
from edgewise_targets.ort.attention import refuse_untranslatable
from edgewise_targets.ort.formats import refuse_slow_formats
from edgewise_targets.ort.lower import LowerOrt


@dataclass(frozen=True)
class Decaying(Attention):
    """A specification that knows more than this lowering."""

    decay: float = 0.0


def test_a_part_of_a_specification_that_is_not_translated_is_refused_by_name() -> None:
    plain = Decaying(heads=4, kv_heads=2, head_dim=16, scale=0.25)
    refuse_untranslatable(plain, layer=3)
    sentence = r"layer 3: attention with 'decay' = 0.5 .* expresses; it knows cache, head_dim"
    with pytest.raises(LoweringError, match=sentence):
        refuse_untranslatable(Decaying(heads=4, kv_heads=2, head_dim=16, scale=0.25, decay=0.5), layer=3)


def test_heads_that_cannot_be_rotated_are_refused(tmp_path: Path) -> None:
    checkpoint = tiny.checkpoint("llama", tmp_path / "llama", head_dim=24)
    with pytest.raises(LoweringError, match=r"layer 0: heads of 24 are rotated; .* multiples of 16"):
        LowerOrt()(Decoder().export(Checkpoint.open(checkpoint)))


def test_heads_that_are_not_rotated_may_have_any_size() -> None:
    refuse_untranslatable(Attention(heads=4, kv_heads=2, head_dim=24, scale=0.2, rotary=None), layer=0)


@pytest.fixture
def canonical(tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    return parity.export("llama", tmp_path_factory.getbasetemp())


def test_a_graph_that_contradicts_its_facts_is_refused(canonical: ir.Model) -> None:
    for node in Roles.of(canonical).all("attention.q.rotary", 1):
        del node.metadata_props["edgewise.role"]
    with pytest.raises(GraphError, match="layer 1: the facts say rotary = 'global', and the graph's nodes say other"):
        LowerOrt()(canonical)


def test_a_graph_without_facts_is_refused(canonical: ir.Model) -> None:
    canonical.metadata_props.clear()
    with pytest.raises(GraphError, match="states no facts"):
        LowerOrt()(canonical)


def test_attention_in_a_place_that_the_facts_do_not_describe_is_refused(canonical: ir.Model) -> None:
    product = Roles.of(canonical).one("attention.o", 2)
    again = {"q_num_heads": 4, "kv_num_heads": 4}
    more = ir.node("Attention", [product.inputs[0]] * 3, attributes=again, name="more")
    product.prepend(mark(more, "attention.more", 2))
    product.replace_input_with(0, more.outputs[0])
    with pytest.raises(LoweringError, match=r"'more' \(Attention, role 'attention.more'\) has no form in this dialect"):
        LowerOrt()(canonical)


def test_a_node_that_reads_positions_is_refused(canonical: ir.Model) -> None:
    (positions,) = (value for value in canonical.graph.inputs if value.name == "position_ids")
    head = Roles.of(canonical).one("lm_head")
    cast = ir.node("Cast", [positions], attributes={"to": int(ir.DataType.FLOAT)}, name="ages")
    axis = ir.Value(name="axis", const_value=ir.tensor(np.array([2])))
    canonical.graph.register_initializer(axis)
    wide = ir.node("Unsqueeze", [cast.outputs[0], axis])
    scaled = ir.node("Mul", [head.inputs[0], wide.outputs[0]])
    head.prepend([cast, wide, scaled])
    head.replace_input_with(0, scaled.outputs[0])
    with pytest.raises(LoweringError, match=r"node 'ages' \(Cast, role 'None'\) reads 'position_ids'"):
        LowerOrt()(canonical)


def product(attributes: dict[str, int], *, zero_points: ir.DataType | None = None) -> ir.Model:
    """A graph of one MatMulNBits called `gate`."""
    values = [ir.Value(name=name) for name in ("x", "packed", "scales")]
    if zero_points is not None:
        values.append(ir.Value(name="zero_points", type=ir.TensorType(zero_points)))
    attributes = {"K": 256, "N": 8, "bits": 4, "block_size": 32, "accuracy_level": 4, **attributes}
    node = ir.node("MatMulNBits", values, attributes=attributes, domain="com.microsoft", name="gate")
    graph = ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": 23, "com.microsoft": 1})
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("attributes", "zero_points", "message"),
    [
        ({"bits": 3}, None, "no product with 3-bit weights; choose bits 2, 4 or 8"),
        ({"bits": 2, "block_size": 16}, None, "2-bit weights in blocks of 16 .* choose block_size 32, 64 or 128"),
        ({"bits": 2, "block_size": 256}, None, "2-bit weights in blocks of 256 .* choose block_size 32, 64 or 128"),
        ({"block_size": 512}, None, "blocks of 512 .* choose block_size 16, 32, 64, 128 or 256"),
        ({"bits": 8, "accuracy_level": 0}, None, "8-bit .* choose accuracy_level 4, or bits 4"),
        ({"bits": 2, "accuracy_level": 1}, None, "2-bit .* choose accuracy_level 4, or bits 4"),
        ({}, ir.DataType.FLOAT, "float zero points .* choose whole ones"),
    ],
)
def test_a_product_that_falls_off_the_fast_path_is_refused_with_what_to_choose(
    attributes: dict[str, int], zero_points: ir.DataType | None, message: str
) -> None:
    with pytest.raises(LoweringError, match=f"'gate': .*{message}"):
        refuse_slow_formats(product(attributes, zero_points=zero_points))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"accuracy_level": 0},
        {"block_size": 256},
        {"bits": 8, "block_size": 128},
        {"bits": 2, "block_size": 64},
    ],
)
def test_a_fast_product_is_not_refused(attributes: dict[str, int]) -> None:
    refuse_slow_formats(product(attributes))
    refuse_slow_formats(product(attributes, zero_points=ir.DataType.UINT8))
