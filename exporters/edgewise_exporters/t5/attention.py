"""exporters, t5: the attention blocks: of the encoder, of the decoder to itself, and of the decoder to the source."""

import onnx_ir as ir

from edgewise.crossing import crossing
from edgewise_exporters.decoder.builder import BATCH, FLOAT, SEQUENCE, TOKENS, TOTAL
from edgewise_exporters.decoder.shared import Shared
from edgewise_exporters.t5.architecture import SCALE
from edgewise_exporters.t5.block import TEXT, Block
from edgewise_exporters.t5.distance import SOURCE


def attend_around(block: Block, hidden: ir.Value, bias: ir.Value) -> ir.Value:
    """The encoder's attention: every token sees every other."""
    a, module = block.architecture.facts.attention[0], "0.SelfAttention"
    q, k, v = block.projections("attention", block.norm("attention.norm", hidden, "0.layer_norm"), module, "qkv")
    heads: dict[str, int | float] = {"q_num_heads": a.heads, "kv_num_heads": a.heads, "scale": SCALE}
    width = a.heads * a.head_dim
    y = block.op("attention", "Attention", q, k, v, bias, name=module, shape=(*block.tokens, width), **heads)
    y = block.linear("attention.o", y, f"{module}.o", block.width, width)
    return block.add("attention.residual", hidden, y, "0.residual")


def attend(block: Block, hidden: ir.Value, bias: ir.Value, shared: Shared) -> ir.Value:
    """The decoder's attention to what it has written; the cache grows by concatenation."""
    index, module = block.index, "0.SelfAttention"
    assert index is not None
    a, name = block.architecture.facts.attention[index], f"{block.path}{module}"
    q, k, v = block.projections("attention", block.norm("attention.norm", hidden, "0.layer_norm"), module, "qkv")
    width, cache = a.heads * a.head_dim, (BATCH, a.heads, TOTAL, a.head_dim)
    attributes: dict[str, int | float] = {"q_num_heads": a.heads, "kv_num_heads": a.heads, "scale": SCALE}
    node = ir.node("Attention", [q, k, v, bias, *shared.past[index]], attributes, num_outputs=3, name=name)
    presents = [(f"present.{index}.{part}", cache, FLOAT) for part in ("key", "value")]
    outputs = [(name, (*TOKENS, width), FLOAT), *presents]
    y, *present = block.builder.add(node, outputs, role="attention", layer=index)
    block.builder.outputs.extend(present)
    y = block.linear("attention.o", y, f"{module}.o", block.width, width)
    return block.add("attention.residual", hidden, y, "0.residual")


def cross(block: Block, encoded: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Keys and values of the source for one layer of the decoder."""
    index, module = block.index, "1.EncDecAttention"
    a, found = block.architecture.facts.attention[0], []
    assert index is not None
    for part, name in (("k", "key"), ("v", "value")):
        sizes = a.heads * a.head_dim, block.width
        x = block.linear(f"cross.{part}", encoded, f"{module}.{part}", *sizes, axes=TEXT)
        value = block.by_heads(f"cross.{part}", x, f"{module}.{part}", TEXT)
        value.name = crossing(index, name)
        found.append(value)
    return found[0], found[1]


def attend_source(block: Block, hidden: ir.Value, keys: ir.Value, values: ir.Value) -> ir.Value:
    """The decoder's attention to the source, all of it; the one text is there for every row."""
    a, module = block.architecture.facts.attention[0], "1.EncDecAttention"
    (q,) = block.projections("cross", block.norm("cross.norm", hidden, "1.layer_norm"), module, "q")
    q, size = block.by_heads("cross.q", q, f"{module}.q"), a.heads * a.head_dim
    pairs, heads = (BATCH, a.heads, SEQUENCE, SOURCE), (BATCH, a.heads, SEQUENCE, a.head_dim)
    turned = (1, a.heads, a.head_dim, SOURCE)
    keys = block.op("cross", "Transpose", keys, name=f"{module}.keys", shape=turned, perm=[0, 1, 3, 2])
    scores = block.op("cross", "MatMul", q, keys, name=f"{module}.scores", shape=pairs)
    shares = block.op("cross", "Softmax", scores, name=f"{module}.shares", shape=pairs, axis=-1)
    y = block.op("cross", "MatMul", shares, values, name=f"{module}.found", shape=heads)
    y = block.op("cross", "Transpose", y, name=f"{module}.turned", shape=(*TOKENS, *heads[1::2]), perm=[0, 2, 1, 3])
    y = block.op("cross", "Reshape", y, block.builder.integers(0, 0, size), name=module, shape=(*TOKENS, size))
    y = block.linear("cross.o", y, f"{module}.o", block.width, size)
    return block.add("cross.residual", hidden, y, "1.residual")
