"""targets, ort: attention, its rotary embedding and its cache as one GroupQueryAttention.

It keeps the cache compact: the keys of a row are its first `seqlens_k + 1` slots, a key's slot is its position, and
past and present may be one buffer. So the attention mask is only counted, and padding must be on the right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgewise.bundle.manifest import CPU
from edgewise.errors import GraphError, LoweringError
from edgewise.facts import Attention, Facts
from edgewise.graph import Roles, get_facts
from edgewise.names import CUDA
from edgewise.passes import context_of
from edgewise.target import Target
from edgewise.tensors import constant, streamed
from edgewise_targets.ort.relative import take_relative
from edgewise_targets.ort.sinks import take_sinks
from edgewise_targets.specification import refuse_unknown
from edgewise_targets.step import Step, become, initializer, insert_before

TRANSLATED = frozenset(
    {"heads", "kv_heads", "head_dim", "scale", "window", "softcap", "rotary", "qk_norm", "cache", "sinks", "relative"}
)


@dataclass(frozen=True)
class FuseAttention(Step):
    """Attention as GroupQueryAttention: rotary embedding inside or before, window and softcap as attributes."""

    name: ClassVar[str] = "ort-attention"
    removes: ClassVar[frozenset[str]] = frozenset({"Attention", "RotaryEmbedding"})

    rotary: Literal["inside", "before"] = "inside"

    def rewrite(self, model: ir.Model) -> bool:
        facts, roles = get_facts(model), Roles.of(model)
        nodes = [(index, roles.one("attention", index)) for index in range(facts.layers)]
        nodes = [(index, node) for index, node in nodes if node.op_type == "Attention"]
        if not nodes:
            return False
        lengths = _lengths(model.graph)
        for index, node in nodes:
            spec = facts.attention[index]
            scales = _int8_cache(model, node, roles, layer=index) if spec.cache == "int8" else []
            query, key, cos, sin = _rotary(node, spec, roles, layer=index)
            if self.rotary == "before":
                query, key, cos, sin, spec = node.inputs[0], node.inputs[1], None, None, replace(spec, rotary=None)
            refuse_untranslatable(spec, layer=index)
            value, past, sinks = node.inputs[2], node.inputs[4:6], take_sinks(node, spec, roles, layer=index)
            bias = take_relative(model, node, spec, layer=index)
            inputs = [query, key, value, *past, *lengths, cos, sin]
            inputs += [None, bias, sinks, *scales] if bias or sinks or scales else []
            become(node, "GroupQueryAttention", inputs, _attributes(spec, facts) | _cache_attributes(scales))
        return True


def refuse_untranslatable(spec: Attention, *, layer: int) -> None:
    """Raises LoweringError for a specification that GroupQueryAttention on a CPU does not express."""
    refuse_unknown(spec, TRANSLATED, dialect="ort", layer=layer)
    if spec.rotary is not None and spec.head_dim % 16:
        raise LoweringError(
            f"layer {layer}: heads of {spec.head_dim} are rotated; GroupQueryAttention rotates multiples of 16 only"
        )


def _attributes(spec: Attention, facts: Facts) -> dict[str, int | float | str]:
    assert spec.scale is not None  # what is not stated was refused
    attributes: dict[str, int | float | str] = {
        "num_heads": spec.heads,
        "kv_num_heads": spec.kv_heads,
        "scale": spec.scale,
    }
    if spec.softcap:
        attributes["softcap"] = spec.softcap
    if spec.window is not None:
        attributes["local_window_size"] = spec.window
    if spec.rotary is not None:
        interleaved = facts.rotary[spec.rotary].interleaved
        attributes |= {"do_rotary": 1, "rotary_interleaved": int(interleaved)}
    return attributes


def _cache_attributes(scales: Sequence[ir.Value | None]) -> dict[str, int | float | str]:
    """How a cache in int8 is scaled; nothing for one of floats."""
    if not scales:
        return {}
    kind = "PER_TENSOR" if _is_one(scales[-1]) else "PER_CHANNEL"
    return {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": 8}


def _rotary(node: ir.Node, spec: Attention, roles: Roles, *, layer: int) -> list[ir.Value | None]:
    """Query and key before their rotation, and the tables that rotate them."""
    rotations = [roles.maybe(f"attention.{part}.rotary", layer) for part in "qk"]
    if [rotation is not None for rotation in rotations] != [spec.rotary is not None] * 2:
        raise GraphError(f"layer {layer}: the facts say rotary = {spec.rotary!r}, and the graph's nodes say otherwise")
    query, key = rotations
    if query is None or key is None:
        return [node.inputs[0], node.inputs[1], None, None]
    return [query.inputs[0], key.inputs[0], query.inputs[1], query.inputs[2]]


def _int8_cache(model: ir.Model, node: ir.Node, roles: Roles, *, layer: int) -> list[ir.Value | None]:
    """The scales, which are the last inputs. Keys and values come unrounded, and stay int8."""
    scales = []
    for index, part in ((1, "k"), (2, "v")):
        quantize, dequantize = roles.all(f"attention.{part}.cache", layer) or (None, None)
        if quantize is None or dequantize is None or node.inputs[index] is not dequantize.outputs[0]:
            raise GraphError(f"layer {layer}: the facts say cache = 'int8', and the graph does not round '{part}'")
        node.replace_input_with(index, quantize.inputs[0])
        scales.append(dequantize.inputs[1])
    _refuse_other_providers(context_of(model).target, scales)
    for value in (*node.inputs[4:6], *node.outputs[1:3]):
        if value is not None:
            value.type = ir.TensorType(ir.DataType.INT8)
    return scales


def _refuse_other_providers(target: Target | None, scales: Sequence[ir.Value | None]) -> None:
    """Scales for each channel are for processors, one for keys and values for CUDA; others have no such kernel."""
    if target is None:
        return
    name = target.providers[0].name
    if name == CPU.name or (name == CUDA and _is_one(scales[0]) and scales[0] is scales[1]):
        return
    what = f"on {CPU.name}, and with one scale for keys and values on {CUDA}"
    fix = "set scales = 'tensor' of 'quantize-cache'" if name == CUDA else "leave 'quantize-cache' out"
    raise LoweringError(
        f"target '{target.name}' runs on {name}; the dialect 'ort' keeps keys and values in int8 {what}: {fix}"
    )


def _is_one(scale: ir.Value | None) -> bool:
    return scale is not None and streamed(scale.const_value).size == 1


def _lengths(graph: ir.Graph) -> tuple[ir.Value, ir.Value]:
    """`seqlens_k`, the last position of each row, int32 [batch]; `total_sequence_length`, the longest, int32 []."""
    first, mask = graph[0], next(value for value in graph.inputs if value.name == "attention_mask")
    one = initializer(graph, constant(np.array([1], np.int64)), "attention_mask.one")
    axis = initializer(graph, constant(np.array(1, np.int64)), "attention_mask.axis")
    counted = insert_before(first, "ReduceSum", [mask, one], ["attention_mask.valid"], {"keepdims": 0})
    last = insert_before(first, "Sub", [*counted, one], ["attention_mask.last"])
    shape = insert_before(first, "Shape", [mask], ["attention_mask.shape"])
    longest = insert_before(first, "Gather", [*shape, axis], ["attention_mask.longest"], {"axis": 0})
    int32 = {"to": int(ir.DataType.INT32)}
    seqlens_k = insert_before(first, "Cast", last, ["seqlens_k"], int32)
    total = insert_before(first, "Cast", longest, ["total_sequence_length"], int32)
    return seqlens_k[0], total[0]
