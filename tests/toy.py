"""tests: a toy decoder as a lowered graph: two layers of GroupQueryAttention with random weights, made in milliseconds.

Token `NAN` has no number for an embedding: what follows it cannot be scored.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgewise.facts import Attention, Facts, Rotary
from edgewise.rotary import tables
from edgewise.runtime.model import Model

LAYERS, HIDDEN, HEADS, KV_HEADS, DIM = 2, 64, 4, 2, 16
VOCABULARY, CONTEXT = 97, 256
NAN = VOCABULARY - 1

ROTARY = Rotary(DIM, 10_000.0)
DYNAMIC = Rotary(DIM, 10_000.0, type="dynamic", original_context=32, parameters={"factor": 4.0})


def facts(rotary: Rotary = ROTARY, vocabulary: int = VOCABULARY) -> Facts:
    layer = Attention(HEADS, KV_HEADS, DIM, DIM**-0.5)
    return Facts("toy", vocabulary, HIDDEN, CONTEXT, (layer,) * LAYERS, {"global": rotary}, eos=(0,))


def toy(folder: Path, *, rotary: Rotary = ROTARY, vocabulary: int = VOCABULARY, **options: Any) -> Model:
    """The toy, loaded; a rotary that follows the context is an input of its graph, as a lowering makes it."""
    path = folder / f"toy-{rotary.type}-{vocabulary}.onnx"
    if not path.exists():
        onnx.save(_graph(rotary, vocabulary), path)
    return Model(path, facts(rotary, vocabulary), **{"threads": 1, **options})


@dataclass
class _Graph:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, list(outputs), **attributes))
        return outputs[0]


def _graph(rotary: Rotary, vocabulary: int) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    graph = _Graph()
    embedding = random.standard_normal((vocabulary, HIDDEN)).astype(np.float32)
    embedding[vocabulary - 1] = np.nan
    graph.constant("embedding", embedding)
    graph.constant("scale", np.ones(HIDDEN, np.float32))
    _inputs(graph, rotary)
    hidden = graph.node("Gather", ["embedding", "input_ids"], "hidden.0")
    for layer in range(LAYERS):
        hidden = _attention(graph, random, hidden, layer)
    _head(graph, hidden, embedding, vocabulary)
    made = helper.make_graph(graph.nodes, "toy", graph.inputs, graph.outputs, graph.constants)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=domains, ir_version=10)


def _inputs(graph: _Graph, rotary: Rotary) -> None:
    for name in ("input_ids", "attention_mask"):
        graph.inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", f"{name}.length"]))
    graph.constant("one", np.array(1, np.int64))
    graph.constant("axis", np.array([1], np.int64))
    graph.node("ReduceSum", ["attention_mask", "axis"], "lengths", keepdims=0)
    graph.node("Sub", ["lengths", "one"], "lasts")
    graph.node("Cast", ["lasts"], "seqlens_k", to=TensorProto.INT32)
    graph.node("Shape", ["attention_mask"], "width", start=1, end=2)
    graph.node("Cast", ["width"], "total", to=TensorProto.INT32)
    for kind, table in zip(("cos", "sin"), tables(rotary, CONTEXT), strict=True):
        name = graph.constant(f"rotary.global.{kind}", table)
        if rotary.follows_context:
            graph.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["positions", DIM // 2]))


def _attention(graph: _Graph, random: np.random.Generator, hidden: str, layer: int) -> str:
    caches = []
    for kind in ("key", "value"):
        past, present = f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}"
        shapes = [["batch", KV_HEADS, length, DIM] for length in ("past", "present")]
        graph.inputs.append(helper.make_tensor_value_info(past, TensorProto.FLOAT, shapes[0]))
        graph.outputs.append(helper.make_tensor_value_info(present, TensorProto.FLOAT, shapes[1]))
        caches.append((past, present))
    width = (HEADS + 2 * KV_HEADS) * DIM
    weights = [random.standard_normal(shape) / 8 for shape in ((HIDDEN, width), (HEADS * DIM, HIDDEN))]
    projection = graph.constant(f"qkv.{layer}", (2 * weights[0]).astype(np.float32))
    output = graph.constant(f"o.{layer}", weights[1].astype(np.float32))
    normed = graph.node("SimplifiedLayerNormalization", [hidden, "scale"], f"normed.{layer}", axis=-1)
    packed = graph.node("MatMul", [normed, projection], f"packed.{layer}")
    rotary = ["rotary.global.cos", "rotary.global.sin"]
    attended = graph.node(
        "GroupQueryAttention",
        [packed, "", "", caches[0][0], caches[1][0], "seqlens_k", "total", *rotary],
        f"attended.{layer}",
        caches[0][1],
        caches[1][1],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=KV_HEADS,
        do_rotary=1,
    )
    mixed = graph.node("MatMul", [attended, output], f"mixed.{layer}")
    return graph.node("Add", [hidden, mixed], f"hidden.{layer + 1}")


def _head(graph: _Graph, hidden: str, embedding: NDArray[np.float32], vocabulary: int) -> None:
    keep = graph.constant("logits_to_keep", np.array([0], np.int64))
    graph.inputs.append(helper.make_tensor_value_info(keep, TensorProto.INT64, [1]))
    graph.constant("end", np.array([1 << 62], np.int64))
    graph.node("Neg", [keep], "start")
    kept = graph.node("Slice", [hidden, "start", "end", "axis"], "kept")
    normed = graph.node("SimplifiedLayerNormalization", [kept, "scale"], "normed", axis=-1)
    head = graph.constant("head", np.nan_to_num(embedding).T.copy())
    graph.node("MatMul", [normed, head], "logits")
    graph.outputs.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "kept", vocabulary]))
