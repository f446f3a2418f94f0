"""plugins, prune: attention with fewer heads: whole groups, of a key-value head and the query heads that read it.

Columns of `o`, and the rows of `q`, `k` and `v` that make them; chosen and made up for as neurons are (see `width`).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.errors import GraphError, OptionError
from edgewise.facts import Attention
from edgewise.graph import Linear, Roles, get_facts, set_facts
from edgewise.passes import Pass, calibration_of, context_of
from edgewise_plugins.prune.eliminate import check_damping, eliminate
from edgewise_plugins.prune.observed import moments, refuse_too_few_tokens
from edgewise_plugins.prune.parts import check_share, floats, integers, keep_rows, put, resize
from edgewise_plugins.views import take_columns

HEADS = {"attention.q": "q", "attention.k": "k", "attention.v": "v"}


@dataclass(frozen=True)
class PruneHeads(Pass):
    """Removes heads of the attention, a key-value head with its query heads at a time: a smaller cache, too.

    `keep` is the share of key-value heads that stays: one at least, and a layer of one is left as it is. Those go whose
    loss the others make up for best; the weights that stay are fitted anew, and a bias is added for what is gone. Needs
    a calibration text. Comes before `quantize` and `quantize-cache`.
    """

    name: ClassVar[str] = "prune-heads"

    keep: float = 0.5
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping)
        check_share(self.keep)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'prune-heads'")
        by_node, facts = floats(model, needed_by="prune-heads"), get_facts(model)
        roles = Roles.of(model)
        outs = [by_node[roles.one("attention.o", number)] for number in range(facts.layers)]
        refuse_too_few_tokens(calibration, max(out.matrix.dims[1] for out in outs), needed_by="prune-heads")
        counts = [self._left(a, number) for number, a in enumerate(facts.attention)]
        if all(a.kv_heads == 1 for a in facts.attention):
            raise GraphError("each layer has one key-value head: there is none to remove")
        if context_of(model).dry:
            for number, (out, count) in enumerate(zip(outs, counts, strict=True)):
                left = np.arange(count)
                out.replace(take_columns(out.matrix, units(facts.attention[number])[left].ravel()))
                _narrow(model, by_node, number, left)
            return ir.passes.PassResult(model, modified=True)
        before = model.clone()
        with calibration.walk(model) as walk, calibration.walk(before) as along:
            along.progress = None
            for number, (out, count) in enumerate(zip(outs, counts, strict=True)):
                a = facts.attention[number]
                if count < a.kv_heads:
                    found = eliminate(moments(walk, along, number, out), units(a), count, damping=self.damping)
                    put(model, out, found.weights, found.bias)
                    _narrow(model, by_node, number, found.units)
                    walk.facts = get_facts(model)
                if along.position == number:
                    along.advance(number)
                walk.advance(number)
        return ir.passes.PassResult(model, modified=True)

    def _left(self, a: Attention, number: int) -> int:
        if a.qk_norm == "full":
            raise GraphError(f"layer {number}: a norm over all heads together knows no fewer heads: 'prune-heads' not")
        if a.sinks:
            raise GraphError(f"layer {number}: each of its heads has a sink: 'prune-heads' not")
        if a.cache != "float32":
            raise GraphError(f"layer {number}: its cache is quantized already: 'prune-heads' comes before")
        if a.kv_heads > 1 and self.keep * a.kv_heads < 1:
            raise OptionError(
                f"keep: {self.keep:g} of the {a.kv_heads} key-value heads of layer {number} is less than one head; "
                f"{1 / a.kv_heads:.3g} leaves one"
            )
        return heads_left(self.keep, a.kv_heads)


def heads_left(share: float, kv_heads: int) -> int:
    """Key-value heads that stay."""
    return max(1, round(share * kv_heads))


def units(a: Attention) -> np.ndarray:
    """The columns of `o` that belong to each key-value head, `[kv_heads, columns of each]`."""
    return np.arange(a.heads * a.head_dim).reshape(a.kv_heads, -1)


def _narrow(model: ir.Model, by_node: dict[ir.Node, Linear], number: int, left: np.ndarray) -> None:
    """Leave these key-value heads, and their query heads, in a layer whose `o` has been cut."""
    facts, roles = get_facts(model), Roles.of(model)
    a = facts.attention[number]
    after = replace(a, heads=a.heads // a.kv_heads * len(left), kv_heads=len(left))
    by_kv = np.arange(a.kv_heads * a.head_dim).reshape(a.kv_heads, -1)
    for name, part in HEADS.items():
        rows = units(a) if part == "q" else by_kv
        keep_rows(roles, by_node[roles.one(name, number)], rows[left].ravel())
        count = after.heads if part == "q" else after.kv_heads
        resize(model, number, (name, f"{name}.bias", f"{name}.rotary"), count * a.head_dim)
        _split(model, roles, f"{name}.norm", number, count, a.head_dim)
        if rotary := roles.maybe(f"{name}.rotary", number):
            rotary.attributes.add(ir.AttrInt64("num_heads", count))
    attention = roles.one("attention", number)
    attention.attributes.add(ir.AttrInt64("q_num_heads", after.heads))
    attention.attributes.add(ir.AttrInt64("kv_num_heads", after.kv_heads))
    values = [attention.outputs[0], *attention.outputs[1:], *attention.inputs[4:6]]
    for value in values:
        if value is not None and value.shape is not None:
            axis, size = (2, after.heads * a.head_dim) if value is attention.outputs[0] else (1, after.kv_heads)
            value.shape = ir.Shape([size if i == axis else n for i, n in enumerate(value.shape)])
    layers = [after if i == number else other for i, other in enumerate(facts.attention)]
    set_facts(model, replace(facts, attention=tuple(layers)))


def _split(model: ir.Model, roles: Roles, name: str, number: int, count: int, width: int) -> None:
    """The shapes around a norm of each head."""
    for node in roles.all(name, number):
        value, shape = node.outputs[0], node.outputs[0].shape
        if shape is None:
            continue
        tail = (count, width) if len(shape) == 4 else (count * width,)
        if node.op_type == "Reshape":
            node.replace_input_with(1, integers(model, f"{node.name}.shape", [0, 0, *tail]))
        value.shape = ir.Shape([*shape[: len(shape) - len(tail)], *tail])
