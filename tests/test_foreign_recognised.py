"""tests: what of graphs that others have exported is recognised, on what proof; what is left, and said to be left."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import parity
from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError, LoweringError
from edgewise.facts import Attention, Rotary
from edgewise.graph import get_facts, linears, remarks
from edgewise.writer import write_model
from edgewise_exporters.foreign import adopt
from edgewise_exporters.foreign.adopt import RECOGNISED
from edgewise_targets.ort.lower import LowerOrt
from edgewise_targets.primitive.lower import LowerPrimitive
from foreign import FIXTURES, NAMES, adopted, exported, oracle

# Of the last layer, where attention is recognised.
STATED = {
    "gpt2": Attention(4, 4, 8, 8**-0.5, rotary=None),
    "gpt_neo": Attention(4, 4, 8, 1.0, window=6, rotary=None),
    "gpt_neox": Attention(2, 2, 32, 32**-0.5),
    "llama": Attention(2, 1, 16, 0.25),
    "opt": Attention(4, 4, 8, 8**-0.5, rotary=None),
}
SPELLED_OUT = {"Shape", "Reshape", "Softmax", "ReduceMean", "Tanh", "Erf", "Where", "Cos"}


@pytest.mark.parametrize("name", STATED)
def test_attention_gets_its_specification(name: str) -> None:
    model = adopted(name)
    facts, kinds = get_facts(model), {node.op_type for node in model.graph}
    assert facts.attention[-1] == STATED[name]
    assert facts.learned_positions == (name in ("gpt2", "gpt_neo", "opt"))
    assert facts.rotary == ({"global": Rotary(16, 3000.0)} if name in ("gpt_neox", "llama") else {})
    assert not kinds & SPELLED_OUT
    assert not remarks(model)


def test_norms_and_activations_become_operators() -> None:
    kinds = {name: Counter(node.op_type for node in adopted(name).graph) for name in ("llama", "bloom")}
    assert kinds["llama"]["RMSNormalization"] == 5
    assert kinds["bloom"]["Gelu"] == 2
    assert kinds["bloom"]["Softmax"] == 2


@pytest.mark.parametrize("name", STATED)
def test_the_canonical_graph_gives_the_scores_of_transformers(name: str, tmp_path: Path) -> None:
    model, wanted = adopted(name), oracle(name)
    write_model(model, tmp_path / "model.onnx")
    session = parity.Canonical(parity.load(tmp_path / "model.onnx"), get_facts(model), 64)
    found, _ = session([wanted.tokens[:30], wanted.tokens[:7]])
    np.testing.assert_allclose(found, wanted.logits[:30], rtol=0, atol=1e-4)
    found, other = session([wanted.tokens[30:33], wanted.tokens[7:8]])  # over a cache that holds padding
    np.testing.assert_allclose(found, wanted.logits[30:33], rtol=0, atol=1e-4)
    np.testing.assert_allclose(other, wanted.logits[7:8], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_padded_on_the_left_get_the_same_scores(name: str, tmp_path: Path) -> None:
    model, wanted, lengths = adopted(name), oracle(name), (12, 5)
    write_model(model, tmp_path / "model.onnx")
    ids, mask = np.zeros((2, 12), np.int64), np.zeros((2, 12), np.int64)
    for row, length in enumerate(lengths):
        ids[row, -length:], mask[row, -length:] = wanted.tokens[:length], 1
    feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": np.maximum(0, mask.cumsum(axis=1) - 1)}
    graph = parity.load(tmp_path / "model.onnx")
    known = {value.name: value.shape for value in graph.get_inputs()}
    pasts = {name: np.zeros((2, dims[1], 0, dims[3]), np.float32) for name, dims in known.items() if name[:4] == "past"}
    (logits,) = graph.run(["logits"], {name: array for name, array in {**feeds, **pasts}.items() if name in known})
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(logits[row, -length:], wanted.logits[:length], rtol=0, atol=1e-4)


def test_every_product_has_its_role_and_layer() -> None:
    found = [(each.role, each.layer) for each in linears(adopted("llama"))]
    parts = ("attention.q", "attention.k", "attention.v", "attention.o", "mlp.gate", "mlp.up", "mlp.down")
    assert found == [("embedding", None), *((part, n) for n in range(2) for part in parts), ("lm_head", None)]
    fused = {each.role for each in linears(adopted("bloom"))}
    assert fused == {"embedding", "attention.qkv", "attention.o", "mlp.up", "mlp.down", "lm_head"}


def test_what_is_left_is_said() -> None:
    model = adopted("bloom")
    assert not get_facts(model).stated
    assert remarks(model) == (
        "attention stays as it was exported: the attention of layer 0 is none of those that were tried",
    )


def test_only_a_graph_whose_attention_is_stated_goes_to_other_dialects() -> None:
    assert LowerPrimitive()(adopted("opt")).modified
    with pytest.raises(LoweringError, match=r"what its attention computes is not stated \(its graph comes"):
        LowerPrimitive()(adopted("bloom"))


@pytest.mark.parametrize("name", ["bloom", "llama"])
def test_steps_done_twice_change_nothing(name: str) -> None:
    model = adopted(name)
    assert [step.name for step in RECOGNISED if step(model).modified] == []
    lowered = LowerOrt()(model).model
    assert not LowerOrt()(lowered).modified


def changed(name: str, old: float, new: float) -> ir.Model:
    """A graph in which a number is another one, wherever it stands."""
    model, count = exported(name), 0
    for node in model.graph:
        if node.op_type == "Constant":
            tensor = node.attributes["value"].as_tensor().numpy()
            if tensor.size == 1 and tensor.dtype == np.float32 and np.isclose(tensor, old).all():
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.full_like(tensor, new)))
                count += 1
    assert count
    return model


def kinds_of(name: str, model: ir.Model) -> set[str]:
    return {node.op_type for node in adopt(model, Checkpoint.open(FIXTURES / name)).graph}


def test_attention_with_a_factor_that_was_not_tried_stays_as_it_is() -> None:
    assert "Attention" not in kinds_of("opt", changed("opt", 8**-0.5, 0.3))


def test_a_norm_of_other_powers_stays_as_it_is() -> None:
    assert "RMSNormalization" not in kinds_of("llama", changed("llama", 2.0, 3.0))


def test_an_activation_that_is_no_gelu_stays_as_it_is() -> None:
    assert "Gelu" not in kinds_of("gpt2", changed("gpt2", 0.044715, 0.05))


def test_a_window_that_nothing_tells_of_is_found_out() -> None:
    checkpoint = Checkpoint.open(FIXTURES / "gpt_neo")
    silent = dataclasses.replace(checkpoint, config={**checkpoint.config, "window_size": None})
    assert not get_facts(adopt(exported("gpt_neo"), silent)).stated


def without(model: ir.Model, name: str) -> ir.Model:
    """The graph without some inputs or outputs."""
    for values in (model.graph.inputs, model.graph.outputs):
        for value in list(values):
            if str(value.name).startswith(name):
                values.remove(value)
    return model


def with_input(model: ir.Model, name: str) -> ir.Model:
    model.graph.inputs.append(ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(("n",))))
    return model


def with_values_of(model: ir.Model, shape: tuple[int | str, ...]) -> ir.Model:
    (value,) = (value for value in model.graph.inputs if value.name == "past_key_values.1.value")
    value.shape = ir.Shape(shape)
    return model


Spoil = Callable[[ir.Model], ir.Model]

GRAPHS: Mapping[str, tuple[Spoil, str]] = {
    "no cache": (lambda m: without(without(m, "past_key"), "present"), r"no cache \(no input 'past_key_values.0"),
    "half a cache": (lambda m: without(m, "present.1.key"), r"has no 'present.1.key', which 2 layers have: export it"),
    "another input": (lambda m: with_input(m, "beam_idx"), r"has an input 'beam_idx', which nobody would feed; known:"),
    "no mask": (lambda m: without(m, "attention_mask"), r"has no input 'attention_mask'; it has input_ids"),
    "no logits": (lambda m: without(m, "logits"), r"gives no logits; it gives present.0.key"),
    "three dimensions": (lambda m: with_values_of(m, ("b", 8, "p")), r"of shape \[b, 8, p\]; expected \[batch, heads"),
    "two sizes": (lambda m: with_values_of(m, ("b", 4, "p", 9)), r"keys of \(4, 8\) and values of \(4, 9\)"),
}


@pytest.mark.parametrize("what", GRAPHS)
def test_a_graph_that_no_session_could_feed_is_refused_in_one_line(what: str) -> None:
    spoil, said = GRAPHS[what]
    with pytest.raises(CheckpointError, match=said) as caught:
        adopt(spoil(exported("gpt2")), Checkpoint.open(FIXTURES / "gpt2"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"n_head": 3}, "disagree: 3 heads, which 4 of keys do not divide"),
        ({"n_layer": 3}, "disagree: layers: 2 and 3"),
        ({"vocab_size": 300}, "disagree: vocabulary: 264 and 300"),
        ({"n_positions": None}, "states no context length, and nor does the graph; it would be one of"),
    ],
)
def test_a_configuration_of_another_model_is_refused_in_one_line(config: Mapping[str, int | None], said: str) -> None:
    checkpoint = Checkpoint.open(FIXTURES / "gpt2")
    with pytest.raises(CheckpointError, match=said):
        adopt(exported("gpt2"), dataclasses.replace(checkpoint, config={**checkpoint.config, **config}))
