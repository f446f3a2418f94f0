"""exporters, decoder: the attention block of a layer, from its norm to its residual."""

import onnx_ir as ir

from edgewise.facts import Attention
from edgewise_exporters.decoder.builder import FLOAT, TOKENS
from edgewise_exporters.decoder.layer import Layer
from edgewise_exporters.decoder.stream import Shared


def attend(layer: Layer, hidden: ir.Value, shared: Shared) -> ir.Value:
    """The residual stream `[batch, sequence, hidden]` after the layer's attention."""
    family, a, size = layer.architecture.family, layer.attention, layer.architecture.facts.hidden_size
    x = hidden
    if module := family.norms.get("attention.norm"):
        x = layer.norm("attention.norm", x, size=size, module=module)
    q, k, v = (layer.linear(f"attention.{part}", x, bias=_has_bias(layer, part)) for part in "qkv")
    q = _rotate(layer, "q", _normalize(layer, "q", q, a.heads), a.heads, shared)
    k = _rotate(layer, "k", _normalize(layer, "k", k, a.kv_heads), a.kv_heads, shared)
    y = layer.linear("attention.o", _scores(layer, q, k, v, shared), bias=_has_bias(layer, "o"))
    if module := family.norms.get("attention.post_norm"):
        y = layer.norm("attention.post_norm", y, size=size, module=module)
    return layer.op("attention.residual", "Add", hidden, y, name="self_attn.residual", shape=(*TOKENS, size))


def _has_bias(layer: Layer, part: str) -> bool:
    return f"attention.{part}" in layer.architecture.attention_biases


def _normalize(layer: Layer, part: str, x: ir.Value, heads: int) -> ir.Value:
    """RMS norm of queries or keys: of each head, or of the whole projection."""
    kind, width = layer.attention.qk_norm, layer.attention.head_dim
    if kind == "none":
        return x
    role = f"attention.{part}.norm"
    module = layer.architecture.family.norms[role]
    if kind == "full":
        return layer.norm(role, x, size=heads * width, module=module)
    by_head, joined = layer.builder.integers(0, 0, heads, width), layer.builder.integers(0, 0, heads * width)
    split = layer.op(role, "Reshape", x, by_head, name=f"{module}.split", shape=(*TOKENS, heads, width))
    normed = layer.norm(role, split, size=width, module=module)
    return layer.op(role, "Reshape", normed, joined, name=f"{module}.joined", shape=(*TOKENS, heads * width))


def _rotate(layer: Layer, part: str, x: ir.Value, heads: int, shared: Shared) -> ir.Value:
    a = layer.attention
    if a.rotary is None:
        return x
    rotary = layer.architecture.facts.rotary[a.rotary]
    partial = {"rotary_embedding_dim": rotary.dim} if rotary.dim < a.head_dim else {}
    return layer.op(
        f"attention.{part}.rotary",
        "RotaryEmbedding",
        x,
        *shared.tables[a.rotary],
        shared.positions,
        name=f"self_attn.{part}_rotary",
        shape=(*TOKENS, heads * a.head_dim),
        num_heads=heads,
        **partial,
    )


def _scores(layer: Layer, q: ir.Value, k: ir.Value, v: ir.Value, shared: Shared) -> ir.Value:
    """Scaled dot-product attention over the cache and the new tokens; the cache grows by concatenation."""
    a, index = layer.attention, layer.index
    assert index is not None
    node = ir.node(
        "Attention",
        [q, k, v, shared.mask(a.window), *shared.past[index]],
        attributes=_attributes(a),
        num_outputs=3,
        name=f"{layer.path}self_attn",
    )
    cache = ("batch", a.kv_heads, "total", a.head_dim)
    outputs = [
        (f"{layer.path}self_attn", (*TOKENS, a.heads * a.head_dim), FLOAT),
        (f"present.{index}.key", cache, FLOAT),
        (f"present.{index}.value", cache, FLOAT),
    ]
    y, *present = layer.builder.add(node, outputs, "attention", index)
    layer.builder.outputs.extend(present)
    return y


def _attributes(a: Attention) -> dict[str, int | float]:
    capped = {"softcap": a.softcap} if a.softcap else {}
    return {"q_num_heads": a.heads, "kv_num_heads": a.kv_heads, "scale": a.scale, **capped}
