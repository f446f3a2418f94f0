"""exporters, foreign: a graph all of whose attention is recognised: the operators take their places, or none does."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from edgewise.graph import get_facts, role, set_facts
from edgewise_exporters.decoder.shared import Shared
from edgewise_exporters.foreign.attention import Found, find, recognise, stated, write
from edgewise_exporters.foreign.candidates import Candidate
from edgewise_exporters.foreign.layers import name_layers
from edgewise_exporters.foreign.onto import Onto
from edgewise_exporters.foreign.reshapes import DropReshapes, KeepTokens
from edgewise_exporters.foreign.widths import Known, width


def state(model: ir.Model, config: Mapping[str, Any]) -> str:
    """Put the operator in the place of every layer's attention. What stands against it; then the model is spoilt."""
    facts = get_facts(model)
    found: list[tuple[Found, Candidate]] = []
    for number in range(facts.layers):
        place = find(model, number)
        candidate = recognise(model, place, config, first=found[-1][1] if found else None) if place else None
        if place is None or candidate is None:
            why = "reads something unknown" if place is None else "is none of those that were tried"
            return f"the attention of layer {number} {why}"
        found.append((place, candidate))
    if len({str(candidate.rotary) for _, candidate in found if candidate.rotary}) > 1:
        return "its layers rotate differently"
    _replace(model, found)
    for tidy in (KeepTokens(), DropReshapes(), common.RemoveUnusedNodesPass()):
        tidy(model)
    if (other := _other(model)) is not None:
        return f"'{other.name}' ({other.op_type}) beside it need not go token by token"
    return name_layers(model)


def _other(model: ir.Model) -> ir.Node | None:
    """An operator that is not seen to go token by token, beside attention and its masks."""
    known: Known = {}
    for node in model.graph:
        apart = str(node.name).startswith("mask.") or role(node) == "lm_head.weight" or _moves_positions(node)
        if not apart and not width(node.outputs[0], known):
            return node
    return None


def _moves_positions(node: ir.Node) -> bool:
    """Whether it adds a number to positions, which some tables begin behind."""
    names = [each.name for each in node.inputs if each is not None and not each.is_initializer()]
    return node.op_type in ("Add", "Cast") and names == ["position_ids"]


def _replace(model: ir.Model, found: list[tuple[Found, Candidate]]) -> None:
    graph, facts = model.graph, stated(get_facts(model), {place.layer: candidate for place, candidate in found})
    builder = Onto({str(value.name): value for value in graph.inputs})
    shared = Shared(builder, facts)
    made = [(place, write(builder, shared, place.layer, candidate, place.flats)) for place, candidate in found]
    builder.put(graph)
    for place, (y, *presents) in made:
        for old, new in zip(place.outputs, (y, *presents), strict=True):
            _take_place(old, new)
    graph.sort()
    common.RemoveUnusedNodesPass()(model)
    set_facts(model, replace(facts, learned_positions=_adds_positions(graph)))


def _take_place(old: ir.Value, new: ir.Value) -> None:
    given = old.is_graph_output()
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    if given:
        name, old.name = old.name, f"{old.name}.exported"
        new.name, new.shape, new.type = name, old.shape, old.type


def _adds_positions(graph: ir.Graph) -> bool:
    """Whether anything but masks and rotations reads positions."""
    (positions,) = (value for value in graph.inputs if value.name == "position_ids")
    return any(node.op_type != "RotaryEmbedding" and node.name != "mask.queries" for node in positions.consumers())
