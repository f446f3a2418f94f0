"""targets, foreign: a cache that grows by concatenation, kept by the runtime in buffers with room for more.

    past_key_values.{i}.key|value  float32 [1, kv_heads, C, head_dim], of which the first T - S positions are held
    attention_mask                 int64 [1, T], with T the positions that are held and the S new ones
    present.{i}.key|value          float32 [1, kv_heads, S, head_dim]: the new positions

What is held is cut out of the buffer where it enters the graph, so all that the graph computes stays as it was.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise_targets.constants import integers
from edgewise_targets.step import Step, insert_before

PAST, PRESENT = "past_key_values.", "present."
NEW = "sequence_length"
POSITIONS = 2  # the axis of a cache
END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class AppendNew(Step):
    """Present keys and values are those of the new tokens, and past ones lie at the beginning of a buffer.

    What a Concat joins to the past is given as it is; of anything else, the last positions.
    """

    name: ClassVar[str] = "foreign-append-new"

    def rewrite(self, model: ir.Model) -> bool:
        graph = model.graph
        inputs = {str(value.name): value for value in graph.inputs}
        pasts = {name.removeprefix(PAST): value for name, value in inputs.items() if name.startswith(PAST)}
        presents = [value for value in graph.outputs if str(value.name).startswith(PRESENT)]
        if all(value.shape is not None and value.shape[POSITIONS] == NEW for value in presents):
            return False
        held = _held(graph, inputs["attention_mask"], inputs["input_ids"])
        for place, present in enumerate(graph.outputs):
            if present in presents:
                _give_new(graph, place, present, pasts[str(present.name).removeprefix(PRESENT)], held)
        for past in pasts.values():
            _take_held(graph, past, held)
        _interface(graph)
        return True


def _held(graph: ir.Graph, mask: ir.Value, ids: ir.Value) -> ir.Value:
    """How many positions are held: int64 [1]."""
    first, axis = graph[0], {"start": 1, "end": 2}
    (total,) = insert_before(first, "Shape", [mask], ["cache.total"], axis)
    (new,) = insert_before(first, "Shape", [ids], ["cache.new"], axis)
    return insert_before(first, "Sub", [total, new], ["cache.held"])[0]


def _give_new(graph: ir.Graph, place: int, present: ir.Value, past: ir.Value, held: ir.Value) -> None:
    """In the place of an output, its new positions, under its name."""
    name, node = str(present.name), present.producer()
    assert node is not None
    present.name = f"{name}.whole"
    if _appends(node, past) and (new := node.inputs[1]) is not None and not new.is_graph_output():
        added = ir.node("Identity", [new], name=name)
    else:
        bounds = [held, integers(graph, END), integers(graph, POSITIONS)]
        added = ir.node("Slice", [present, *bounds], name=name)
    graph.append(added)
    value = added.outputs[0]
    value.name, value.type, value.shape = name, present.type, past.shape
    graph.outputs[place] = value


def _appends(node: ir.Node, past: ir.Value) -> bool:
    """Whether an operator joins something behind the past."""
    axis = node.attributes.get_int("axis", 0)
    return node.op_type == "Concat" and len(node.inputs) == 2 and node.inputs[0] is past and axis in (POSITIONS, -2)


def _take_held(graph: ir.Graph, past: ir.Value, held: ir.Value) -> None:
    """What is held, in front of all that reads the past."""
    readers = list(past.uses())
    after = held.producer()
    assert after is not None
    bounds = [integers(graph, 0), held, integers(graph, POSITIONS)]
    cut = ir.node("Slice", [past, *bounds], name=f"{past.name}.held")
    cut.outputs[0].name = f"{past.name}.held"
    after.append(cut)
    for node, index in readers:
        node.replace_input_with(index, cut.outputs[0])


def _interface(graph: ir.Graph) -> None:
    """One row, with its lengths by the names that other graphs have for them."""
    names = {"input_ids": (1, NEW), "position_ids": (1, NEW), "attention_mask": (1, "total_sequence_length")}
    for value in (*graph.inputs, *graph.outputs):
        name = str(value.name)
        if name in names:
            value.shape = ir.Shape(names[name])
        elif value.shape is not None and name.startswith((PAST, PRESENT)):
            length = "past_sequence_length" if name.startswith(PAST) else NEW
            value.shape = ir.Shape((1, value.shape[1], length, value.shape[3]))
        elif value.shape is not None and len(value.shape) == 3:  # logits and hidden states
            value.shape = ir.Shape((1, value.shape[1], value.shape[2]))
