"""targets: the appended cache: the caller keeps keys and values, and the graph gives those of the new positions.

For dialects whose attention is made of standard operators. One sequence, C slots of cache, S new tokens:

    input_ids, position_ids        int64 [1, S]
    attention_bias                 float32 [1, 1, S, C + S], 0 where a query may look; `attention_bias.{window}` for
                                   each sliding window: those that the layers read
    past_key_values.{i}.key|value  float32 [1, kv_heads, C, head_dim]
    present.{i}.key|value          float32 [1, kv_heads, S, head_dim], keys after their rotation

Which slots hold something, and whether a key comes before a query, is the caller's knowledge alone: what must not be
seen is biased away. Keys are the slots in their order, then the new ones. Where lengths are fixed, C of a layer with a
window is less than the context if a ring is enough for it (`edgewise.rings`): the facts say how many slots it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from edgewise import rings
from edgewise.errors import GraphError
from edgewise.facts import Attention, Facts
from edgewise.graph import Roles, get_facts, remark, set_facts
from edgewise.passes import BuildContext, context_of
from edgewise_targets.constants import integers
from edgewise_targets.specification import refuse_unknown
from edgewise_targets.step import Step, become, insert_before

TRANSLATED = frozenset({"heads", "kv_heads", "head_dim", "scale", "window", "softcap", "rotary", "qk_norm"})

Length = int | str


@dataclass(frozen=True)
class AppendedCache(Step):
    """Attention by heads, `[1, heads, S, head_dim]`, over the cache as it is given and the new keys behind it.

    Where the build says how wide a run is (`BuildContext.width`), S is that many tokens and C its context, or the
    length of a ring (`BuildContext.margin`); otherwise both are dynamic. Afterwards Attention has four inputs and one
    output, and rotates queries and keys by heads.
    """

    name: ClassVar[str] = "appended-cache"

    def rewrite(self, model: ir.Model) -> bool:
        facts, roles, graph = get_facts(model), Roles.of(model), model.graph
        for index, spec in enumerate(facts.attention):
            if not spec.stated:
                refuse_unknown(spec, TRANSLATED, dialect="appended cache", layer=index)
        found = [(index, _with_cache(roles, index)) for index in range(facts.layers)]
        nodes = [(index, node) for index, node in found if node]
        if not nodes:
            return False
        new, context = _lengths(model)
        kept = _with_rings(facts, context_of(model))
        slots = [spec.ring or context for spec in kept.attention]
        biases: dict[int | None, ir.Value] = {}
        for index, node in nodes:
            spec = facts.attention[index]
            refuse_unknown(spec, TRANSLATED, dialect="appended cache", layer=index)
            if spec.window not in biases:
                biases[spec.window] = _bias(spec.window, new, slots[index])
            _attend(graph, roles, index, node, spec, biases[spec.window])
        _interface(graph, list(biases.values()), new, slots)
        if kept != facts:
            set_facts(model, kept)
            remark(model, "rings", rings.describe(kept, context_of(model).context or 0))
        return True


def _with_cache(roles: Roles, layer: int) -> ir.Node | None:
    """The attention of a layer, if it still keeps its cache itself."""
    for node in roles.all("attention", layer):
        if node.op_type == "Attention" and len(node.inputs) > 4:
            return node
    return None


def _lengths(model: ir.Model) -> tuple[Length, Length]:
    """Tokens of a run, and slots of the cache."""
    context = context_of(model)
    if context.width is None:
        return "sequence_length", "past_sequence_length"
    if context.context is None:
        raise GraphError("a graph of fixed lengths needs to know how many tokens its cache holds")
    return context.width, context.context


def _with_rings(facts: Facts, build: BuildContext) -> Facts:
    """The facts, with how many positions each layer keeps."""
    if build.width is None or build.margin is None or build.context is None:
        return facts
    margin, context = build.margin, build.context
    attention = (replace(spec, ring=rings.slots(spec.window, margin, context)) for spec in facts.attention)
    return replace(facts, attention=tuple(attention))


def _bias(window: int | None, new: Length, slots: Length) -> ir.Value:
    name = "attention_bias" if window is None else f"attention_bias.{window}"
    keys = new + slots if isinstance(new, int) and isinstance(slots, int) else "total_sequence_length"
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((1, 1, new, keys)))


def _attend(graph: ir.Graph, roles: Roles, index: int, node: ir.Node, spec: Attention, bias: ir.Value) -> None:
    """In the place of the node: the same attention by heads, and its result side by side again."""
    sides = {"q": spec.heads, "k": spec.kv_heads, "v": spec.kv_heads}
    query, *new = (_by_heads(graph, roles, index, node, place, *side, spec) for place, side in enumerate(sides.items()))
    joined: list[ir.Value] = []
    for value, past, old, part in zip(new, node.inputs[4:6], node.outputs[1:3], ("key", "value"), strict=True):
        old.name = None
        graph.outputs[graph.outputs.index(old)] = value
        value.name, value.dtype = f"present.{index}.{part}", ir.DataType.FLOAT
        names = [f"{node.name}.{part}s"]
        joined += insert_before(node, "Concat", [past, value], names, {"axis": 2}, role="attention")
    attributes = {
        name: node.attributes.get_float(name, 0.0) for name in ("scale", "softcap") if name in node.attributes
    }
    inputs = [query, *joined, bias]
    (heads,) = insert_before(node, "Attention", inputs, [f"{node.name}.heads"], attributes, role="attention")
    (turned,) = insert_before(
        node, "Transpose", [heads], [f"{node.name}.turned"], {"perm": (0, 2, 1, 3)}, role="attention"
    )
    node.resize_outputs(1)
    become(node, "Reshape", [turned, integers(graph, 0, 0, spec.heads * spec.head_dim)], domain="")


def _by_heads(
    graph: ir.Graph, roles: Roles, index: int, node: ir.Node, place: int, part: str, heads: int, spec: Attention
) -> ir.Value:
    """Queries, keys or values `[1, heads, S, head_dim]`, rotated where they are."""
    x, rotation = node.inputs[place], roles.maybe(f"attention.{part}.rotary", index)
    if (rotation is not None) != (spec.rotary is not None and part != "v"):
        raise GraphError(f"layer {index}: the facts say rotary = {spec.rotary!r}, and the graph's nodes say otherwise")
    first = rotation or node
    if rotation is not None:
        x = rotation.inputs[0]
    assert x is not None
    joins = x.producer()
    role, name = f"attention.{part}.heads", f"{node.name}.{part}"
    if joins is not None and joins.op_type == "Reshape" and joins.inputs[0] is not None:  # a norm by heads ends so
        split = joins.inputs[0]
    else:
        shape = integers(graph, 0, 0, heads, spec.head_dim)
        (split,) = insert_before(first, "Reshape", [x, shape], [f"{name}.split"], role=role)
    (turned,) = insert_before(first, "Transpose", [split], [f"{name}.heads"], {"perm": (0, 2, 1, 3)}, role=role)
    if rotation is None:
        return turned
    rotation.replace_input_with(0, turned)
    rotation.attributes.pop("num_heads", None)
    rotation.outputs[0].shape = None
    return rotation.outputs[0]


def _interface(graph: ir.Graph, biases: Sequence[ir.Value], new: Length, slots: Sequence[Length]) -> None:
    """Inputs and outputs, with their lengths; `slots` of the cache, layer by layer."""
    inputs = [value for value in graph.inputs if value.name != "attention_mask"]
    inputs[2:2] = biases
    graph.inputs[:] = inputs
    for value in (*graph.inputs, *graph.outputs):
        name, shape = str(value.name), value.shape
        if name in ("input_ids", "position_ids"):
            value.shape = ir.Shape((1, new))
        elif shape is not None and name.startswith("past_key_values."):
            value.shape = ir.Shape((1, shape[1], slots[int(name.split(".")[1])], shape[3]))
    _outputs(graph, new)


def _outputs(graph: ir.Graph, new: Length) -> None:
    pasts = {str(value.name).removeprefix("past_key_values."): value.shape for value in graph.inputs}
    for value in graph.outputs:
        past = pasts.get(str(value.name).removeprefix("present."))
        if past is not None:
            value.shape = ir.Shape((1, past[1], new, past[3]))
        elif value.shape is not None:  # logits, of all positions or of those that are kept, and hidden states
            tokens = value.shape[1]
            value.shape = ir.Shape((1, new if tokens == "sequence_length" else tokens, value.shape[2]))
