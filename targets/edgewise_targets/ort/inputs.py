"""targets, ort: the inputs of the lowered graph: how many logits to keep, and no positions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.graph import Roles, get_facts, role
from edgewise.hidden import HIDDEN
from edgewise.tensors import constant
from edgewise_targets.step import Step, initializer, insert_before

KEEP = "logits_to_keep"
BY_POSITION = ("Add", "Div", "Mul", "Tanh")  # which may follow an lm_head


@dataclass(frozen=True)
class KeepLogits(Step):
    """An optional input `logits_to_keep`, int64 [1]: the logits of so many last positions; 0, its default: of all.

    What follows the last attention goes position by position, so the cut is made right behind it: that spares the MLP
    of the last layer too, not the lm_head alone. Where hidden states are an output, which no cut shortens, it is made
    behind them; where the attention is not stated, before the lm_head, or not at all.
    """

    name: ClassVar[str] = "ort-keep-logits"

    def rewrite(self, model: ir.Model) -> bool:
        graph = model.graph
        if any(value.name == KEEP for value in graph.inputs) or not _goes_by_position(model):
            return False
        whole = _last_whole(model)
        tail = _downstream(graph, [whole])
        positional = _downstream(graph, [i for i in graph.inputs if i.name in ("input_ids", "position_ids")])
        uncut = {whole} | (positional - tail)
        readers = [node for node in graph if node.outputs[0] in tail - {whole}]
        entries = [
            (node, place, value) for node in readers for place, value in enumerate(node.inputs) if value in uncut
        ]
        bounds, cuts = _bounds(graph), dict[ir.Value, ir.Value]()
        for node, place, value in entries:
            assert value is not None
            if value not in cuts:
                (cuts[value],) = insert_before(node, "Slice", [value, *bounds], [f"{value.name}.kept"])
            node.replace_input_with(place, cuts[value])
        (logits,) = (value for value in graph.outputs if value.name == "logits")
        logits.shape = ir.Shape(("batch_size", "kept", get_facts(model).vocab_size))
        return True


@dataclass(frozen=True)
class DropPositions(Step):
    """No input `position_ids`: the attention counts positions itself.

    It stays where the embedding reads it, or distances are computed of it.
    """

    name: ClassVar[str] = "ort-drop-positions"

    def rewrite(self, model: ir.Model) -> bool:
        facts = get_facts(model)
        if facts.learned_positions or any(spec.relative for spec in facts.attention):
            return False
        positions = [value for value in model.graph.inputs if value.name == "position_ids"]
        for value in positions:
            if readers := value.consumers():
                raise LoweringError(
                    f"node '{readers[0].name}' ({readers[0].op_type}, role '{role(readers[0])}') reads 'position_ids': "
                    "in the dialect 'ort' only the attention knows positions"
                )
            model.graph.inputs.remove(value)
        return bool(positions)


def _goes_by_position(model: ir.Model) -> bool:
    """Whether all that follows the place of the cut does: of an attention that is not stated, that is to be seen."""
    if get_facts(model).stated:
        return True
    head = Roles.of(model).maybe("lm_head")
    tail = _downstream(model.graph, head.outputs) if head else set()
    behind = [node for node in model.graph if node is not head and node.outputs[0] in tail]
    others = [value for node in behind for value in node.inputs if value is not None and value not in tail]
    return bool(tail) and all(node.op_type in BY_POSITION for node in behind) and all(map(_is_one, others))


def _is_one(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size == 1


def _last_whole(model: ir.Model) -> ir.Value:
    """What the cut is made behind."""
    hidden = [value for value in model.graph.outputs if value.name == HIDDEN]
    if hidden:
        return hidden[0]
    roles, facts = Roles.of(model), get_facts(model)
    if not facts.stated:  # what lies behind such an attention need not go position by position
        entering = roles.one("lm_head").inputs[0]
        assert entering is not None
        return entering
    last = facts.layers - 1
    return (roles.maybe("attention.sink", last) or roles.one("attention", last)).outputs[0]


def _downstream(graph: ir.Graph, values: Iterable[ir.Value]) -> set[ir.Value | None]:
    """The values, and all that is computed from them."""
    reached: set[ir.Value | None] = set(values)
    for node in graph:
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    return reached


def _bounds(graph: ir.Graph) -> list[ir.Value]:
    """Start, end and axis of a Slice that keeps the last positions: -0, the start of them all, keeps every one.

    The start is computed of a shape, tokens - (tokens + keep): so ONNX Runtime does it on the processor, where a Slice
    on a GPU wants it, and nothing is copied between the two while the GPU's work is captured as a CUDA graph.
    """
    keep, end, axis = (
        initializer(graph, constant(np.array([number], np.int64)), name)
        for number, name in ((0, KEEP), (np.iinfo(np.int64).max, f"{KEEP}.end"), (1, f"{KEEP}.axis"))
    )
    graph.inputs.append(keep)
    (ids,) = (value for value in graph.inputs if value.name == "input_ids")
    first = graph[0]
    (tokens,) = insert_before(first, "Shape", [ids], [f"{KEEP}.tokens"], {"start": 1, "end": 2})
    (more,) = insert_before(first, "Add", [tokens, keep], [f"{KEEP}.more"])
    (start,) = insert_before(first, "Sub", [tokens, more], [f"{KEEP}.start"])
    return [start, end, axis]
