"""plugins: the cache of keys and values in int8, symmetric scales for channels or layers, calibrated on a text.

A scale is the largest |value| of its channel / 127. Keys are rounded after their rotation, and a rotation turns pairs
of channels (a, b): a text of some hundred tokens shows little of the circle that a slow pair goes through. Its radius
sqrt(a² + b²) is the same at every position, so the largest radius serves as the size of both: later keys fit too.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgewise.calibration.walk import Walk
from edgewise.errors import GraphError
from edgewise.facts import Facts, Rotary
from edgewise.graph import Roles, get_facts, mark, set_facts
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.tensors import constant

logger = logging.getLogger(__name__)

STEPS = 127
KEY, VALUE = 1, 2  # inputs of an attention

Sizes = tuple[np.ndarray, np.ndarray]  # of a layer's keys and values: float32 [kv_heads * head_dim] each


@dataclass(frozen=True)
class QuantizeCache(Pass):
    """Keeps keys and values in int8: a quarter of the memory. Long prompts take longer.

    Needs a calibration text. Comes after `rotate`, and best before `quantize`. The graph stays float: it rounds the
    keys, after their rotation, and the values.

    `scales`: one for each channel; or one for all keys and values of a layer (tensor), as the fast kernels for NVIDIA
    GPUs take them. That is coarser: what is small beside the largest key or value loses bits.
    """

    name: ClassVar[str] = "quantize-cache"

    scales: Literal["channel", "tensor"] = "channel"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'quantize-cache'")
        calibration.expect_statistics(model)
        facts, roles = get_facts(model), Roles.of(model)
        nodes = [_float_attention(facts, roles, layer) for layer in range(facts.layers)]
        if context_of(model).dry:
            for layer, a in enumerate(facts.attention):
                anything = np.ones(a.kv_heads * a.head_dim, np.float32)
                self._round(model.graph, nodes[layer], (anything, anything), layer)
        else:
            with calibration.walk(model) as walk:
                for layer, node in enumerate(nodes):
                    self._round(model.graph, node, measure(walk, node, facts, layer), layer)
                    if layer + 1 < facts.layers:
                        walk.advance(layer)
        kept = tuple(dataclasses.replace(a, cache="int8") for a in facts.attention)
        set_facts(model, dataclasses.replace(facts, attention=kept))
        logger.info("quantize-cache: keys and values of %d layers", facts.layers)
        return ir.passes.PassResult(model, modified=True)

    def _round(self, graph: ir.Graph, node: ir.Node, sizes: Sizes, layer: int) -> None:
        """Round what an attention takes as its keys and its values."""
        if self.scales == "tensor":
            largest = np.max(np.concatenate(sizes), keepdims=True)
            steps = [_initializer(graph, scales(largest), f"cache.{layer}.scale")] * 2
        else:
            names = (f"cache.{layer}.{part}_scale" for part in ("key", "value"))
            steps = [_initializer(graph, scales(size), name) for size, name in zip(sizes, names, strict=True)]
        _round(node, steps, layer)


def measure(walk: Walk, node: ir.Node, facts: Facts, layer: int) -> Sizes:
    """How large keys, after their rotation, and values get on the text, channel by channel."""
    a = facts.attention[layer]
    rotary = None if a.rotary is None else facts.rotary[a.rotary]
    shape = (-1, a.kv_heads, a.head_dim)
    batches = [
        (key_sizes(keys.reshape(shape), rotary), np.abs(values.reshape(shape)).max(axis=0))
        for keys, values in _seen(walk, node, layer)
    ]
    keys, values = (np.max(part, axis=0).reshape(-1) for part in zip(*batches, strict=True))
    return keys, values


def key_sizes(keys: np.ndarray, rotary: Rotary | None) -> np.ndarray:
    """The largest |key| of each channel at any position, of keys after their rotation at some.

    keys: `[tokens, kv_heads, head_dim]`. Returns `[kv_heads, head_dim]`.
    """
    if rotary is None:
        return np.asarray(np.abs(keys).max(axis=0))
    turned, rest = keys[..., : rotary.dim], keys[..., rotary.dim :]
    pairs = (turned[..., ::2], turned[..., 1::2]) if rotary.interleaved else np.split(turned, 2, axis=-1)
    radius = np.hypot(*pairs).max(axis=0)
    both = np.repeat(radius, 2, axis=-1) if rotary.interleaved else np.concatenate([radius, radius], axis=-1)
    return np.concatenate([both, np.abs(rest).max(axis=0)], axis=-1)


def scales(sizes: np.ndarray) -> np.ndarray:
    """A step for each channel; for one that was always zero, that of the largest channel: it may wake up."""
    largest = sizes.max() or np.float32(1)
    return np.asarray(np.where(sizes > 0, sizes, largest) / np.float32(STEPS), np.float32)


def _seen(walk: Walk, node: ir.Node, layer: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    names = [str(value.name) for value in (node.inputs[KEY], node.inputs[VALUE]) if value is not None]
    for found in walk.values(layer, names):
        keys, values = (found[name] for name in names)
        yield keys, values


def _float_attention(facts: Facts, roles: Roles, layer: int) -> ir.Node:
    if (cache := facts.attention[layer].cache) != "float32":
        raise GraphError(f"layer {layer}: keys and values are kept in {cache} already")
    return roles.one("attention", layer)


def _round(node: ir.Node, steps: Sequence[ir.Value], layer: int) -> None:
    """Round what an attention takes as its keys and its values to multiples of these steps."""
    for index, part, step in zip((KEY, VALUE), ("key", "value"), steps, strict=True):
        value = node.inputs[index]
        assert value is not None
        int8 = {"axis": 2, "output_dtype": int(ir.DataType.INT8)}
        quantized = ir.node("QuantizeLinear", [value, step], attributes=int8, name=f"cache.{layer}.{part}.int8")
        rounded = ir.node(
            "DequantizeLinear", [*quantized.outputs, step], attributes={"axis": 2}, name=f"cache.{layer}.{part}"
        )
        for new in (quantized, rounded):
            new.outputs[0].name = new.name
            node.prepend(mark(new, f"attention.{part[0]}.cache", layer))
        rounded.outputs[0].type, rounded.outputs[0].shape = value.type, value.shape
        node.replace_input_with(index, rounded.outputs[0])


def _initializer(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    tensor = constant(array, name=name)
    kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.dims)
    value = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value
