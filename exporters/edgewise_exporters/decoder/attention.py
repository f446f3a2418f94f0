"""exporters, decoder: the attention block of a layer, from its norm to its residual."""

from typing import Any

import onnx_ir as ir

from edgewise_exporters.decoder.builder import BATCH, FLOAT, SEQUENCE, TOKENS, TOTAL, Shape
from edgewise_exporters.decoder.layer import Layer
from edgewise_exporters.decoder.shared import Shared

SCORES = 2  # what Attention gives beside its result: what enters the softmax (ONNX Runtime 1.31 has no mask in 1)


def attend(layer: Layer, hidden: ir.Value, shared: Shared) -> ir.Value:
    """The residual stream `[batch, sequence, hidden]` after the layer's attention."""
    a, biased = layer.attention, layer.architecture.attention_biases
    x = layer.block_norm("attention.norm", hidden)
    q, k, v = (layer.linear(f"attention.{part}", x, bias=f"attention.{part}" in biased) for part in "qkv")
    q = _rotate(layer, "q", _normalize(layer, "q", q, a.heads), a.heads, shared)
    k = _rotate(layer, "k", _normalize(layer, "k", k, a.kv_heads), a.kv_heads, shared)
    y = layer.linear("attention.o", _attend(layer, q, k, v, shared), bias="attention.o" in biased)
    y = layer.block_norm("attention.post_norm", y)
    shape = (*TOKENS, layer.architecture.facts.hidden_size)
    return layer.op("attention.residual", "Add", hidden, y, name="self_attn.residual", shape=shape)


def _normalize(layer: Layer, part: str, x: ir.Value, heads: int) -> ir.Value:
    """RMS norm of queries or keys: of each head, or of the whole projection."""
    kind, width = layer.attention.qk_norm, layer.attention.head_dim
    if kind == "none":
        return x
    role = f"attention.{part}.norm"
    module = layer.architecture.family.norms[role]
    if kind == "full":
        return layer.norm(role, x, module=module, size=heads * width)
    by_head, joined = layer.builder.integers(0, 0, heads, width), layer.builder.integers(0, 0, heads * width)
    split = layer.op(role, "Reshape", x, by_head, name=f"{module}.split", shape=(*TOKENS, heads, width))
    normed = layer.norm(role, split, module=module, size=width, axes=(*TOKENS, heads))
    return layer.op(role, "Reshape", normed, joined, name=f"{module}.joined", shape=(*TOKENS, heads * width))


def _rotate(layer: Layer, part: str, x: ir.Value, heads: int, shared: Shared) -> ir.Value:
    """Rotary position embedding (arXiv 2104.09864) of the first dimensions of each head."""
    a = layer.attention
    if a.rotary is None:
        return x
    dim = layer.architecture.facts.rotary[a.rotary].dim
    some = {"rotary_embedding_dim": dim} if dim < a.head_dim else {}
    inputs = (x, *shared.tables[a.rotary], shared.positions)
    name, shape = f"self_attn.{part}_rotary", (*TOKENS, heads * a.head_dim)
    role = f"attention.{part}.rotary"
    return layer.op(role, "RotaryEmbedding", *inputs, name=name, shape=shape, num_heads=heads, **some)


def _attend(layer: Layer, q: ir.Value, k: ir.Value, v: ir.Value, shared: Shared) -> ir.Value:
    """Attention over the cache and the new tokens; the cache grows by concatenation."""
    a, index = layer.attention, layer.index
    assert index is not None
    assert a.scale is not None
    attributes: dict[str, int | float] = {"q_num_heads": a.heads, "kv_num_heads": a.kv_heads, "scale": a.scale}
    if a.softcap:
        attributes["softcap"] = a.softcap
    if a.sinks:
        attributes["qk_matmul_output_mode"] = SCORES
    inputs, name = [q, k, v, shared.mask(a.window), *shared.past[index]], f"{layer.path}self_attn"
    cache = (BATCH, a.kv_heads, TOTAL, a.head_dim)
    outputs = [
        (name, (*TOKENS, a.heads * a.head_dim), FLOAT),
        (f"present.{index}.key", cache, FLOAT),
        (f"present.{index}.value", cache, FLOAT),
        *([(f"{name}.scores", (BATCH, a.heads, SEQUENCE, TOTAL), FLOAT)] if a.sinks else []),
    ]
    node = ir.node("Attention", inputs, attributes=attributes, num_outputs=len(outputs), name=name)
    y, *present = layer.builder.add(node, outputs, role="attention", layer=index)
    layer.builder.outputs.extend(present[:2])
    return _without_sinks(layer, y, present[2]) if a.sinks else y


def _without_sinks(layer: Layer, y: ir.Value, scores: ir.Value) -> ir.Value:
    """What is left of `y` when each head's sink (arXiv 2309.17453) takes its share of the softmax, and adds nothing.

    With z the logarithm of the softmax's denominator, it is sigmoid(z - sink) of it.
    """
    a, role, integers = layer.attention, "attention.sink", layer.builder.integers
    name, heads = "self_attn.sinks", (*TOKENS, a.heads, a.head_dim)
    sinks = layer.builder.initializer(layer.weights.take(f"{layer.path}{name}", a.heads), f"{layer.path}{name}")

    def op(op_type: str, *inputs: ir.Value, what: str, shape: Shape, **attributes: Any) -> ir.Value:
        return layer.op(role, op_type, *inputs, name=f"{name}.{what}", shape=shape, **attributes)

    total = op("ReduceLogSumExp", scores, integers(-1), what="total", shape=(BATCH, a.heads, SEQUENCE), keepdims=0)
    total = op("Transpose", total, what="totals", shape=(*TOKENS, a.heads), perm=[0, 2, 1])
    left = op("Sigmoid", op("Sub", total, sinks, what="over", shape=(*TOKENS, a.heads)), what="left", shape=heads[:3])
    left = op("Unsqueeze", left, integers(-1), what="factors", shape=(*heads[:3], 1))
    split = op("Reshape", y, integers(0, 0, a.heads, a.head_dim), what="split", shape=heads)
    taken = op("Mul", split, left, what="taken", shape=heads)
    joined = integers(0, 0, a.heads * a.head_dim)
    return op("Reshape", taken, joined, what="joined", shape=(*TOKENS, a.heads * a.head_dim))
