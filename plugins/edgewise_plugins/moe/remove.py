"""plugins, moe: experts taken out of the graph: their matrices, their rows of the router, and their gates."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgewise.facts import Experts
from edgewise.graph import EXPERT, Linear, Roles, expert, get_facts, layer, linears, mark, role, set_facts
from edgewise_plugins.prune.parts import drop_unused, integers
from edgewise_plugins.views import take_rows

ROUTING = ("router", "router.probabilities", "router.gates")  # whose last axis is the experts


def remove_experts(model: ir.Model, number: int, left: Sequence[int]) -> None:
    """Leave these experts in a layer, which are numbered anew in their order."""
    facts, roles = get_facts(model), Roles.of(model)
    router = next(linear for linear in linears(model) if linear.layer == number and linear.role == "router")
    router.replace(take_rows(router.matrix, np.array(left)))
    _split(model, roles, number, left)
    _sum(roles, number, left)
    gone = [n for n in model.graph if layer(n) == number and expert(n) is not None and expert(n) not in left]
    for node in reversed(gone):
        model.graph.remove(node, safe=True)
    places = {str(old): str(new) for new, old in enumerate(left)}
    for node in model.graph:
        if layer(node) == number and expert(node) is not None:
            node.metadata_props[EXPERT] = places[node.metadata_props[EXPERT]]
    _resize(model, number, len(left))
    drop_unused(model.graph)
    before = facts.experts[number]
    assert before is not None
    _state(model, number, replace(before, count=len(left)))


def give_to(model: ir.Model, number: int, active: int) -> None:
    """Give each token of a layer to so many experts."""
    roles = Roles.of(model)
    top, before = roles.one("router.top", number), get_facts(model).experts[number]
    assert before is not None
    top.replace_input_with(1, integers(model, f"{top.name}.count", [active]))
    for node in [top, *roles.all("router.normalized", number)]:
        for output in node.outputs:
            if node.op_type != "ReduceSum" and output.shape is not None:
                output.shape = ir.Shape([*output.shape[:-1], active])
    drop_unused(model.graph)
    _state(model, number, replace(before, active=active))


def routers(model: ir.Model) -> dict[int, Linear]:
    """By layer."""
    return {linear.layer: linear for linear in linears(model) if linear.role == "router" and linear.layer is not None}


def _split(model: ir.Model, roles: Roles, number: int, left: Sequence[int]) -> None:
    """The gates of the experts that stay, one by one."""
    old = next(node for node in roles.all("router.gates", number) if node.op_type == "Split")
    attributes = {"axis": -1, "num_outputs": len(left)}
    new = ir.node("Split", [old.inputs[0]], attributes, num_outputs=len(left), name=old.name)
    for value, kept in zip(new.outputs, (old.outputs[index] for index in left), strict=True):
        value.name, value.shape, value.type = kept.name, kept.shape, kept.type
        ir.convenience.replace_all_uses_with(kept, value)
    mark(new, "router.gates", number)
    old.append(new)
    for value in old.outputs:
        value.name = f"{value.name}.before"
    gone = [output for index, output in enumerate(old.outputs) if index not in left]
    for output in gone:
        for user, position in list(output.uses()):
            user.replace_input_with(position, None)
    model.graph.remove(old, safe=True)


def _sum(roles: Roles, number: int, left: Collection[int]) -> None:
    node = roles.one("expert.sum", number)
    kept = [value for value in node.inputs if (p := value.producer() if value else None) and expert(p) in left]
    node.resize_inputs(len(kept))
    for index, value in enumerate(kept):
        node.replace_input_with(index, value)


def _resize(model: ir.Model, number: int, count: int) -> None:
    for node in model.graph:
        if layer(node) == number and role(node) in ROUTING and node.op_type not in ("Split", "Shape"):
            for value in node.outputs:
                if value.shape is not None:
                    value.shape = ir.Shape([*value.shape[:-1], count])


def _state(model: ir.Model, number: int, experts: Experts) -> None:
    facts = get_facts(model)
    layers = tuple(experts if i == number else other for i, other in enumerate(facts.experts))
    set_facts(model, replace(facts, experts=layers))
