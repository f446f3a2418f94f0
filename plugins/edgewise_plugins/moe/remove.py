"""plugins, moe: experts taken out of the graph: their matrices, their rows of the router, and their gates."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import EXPERT, Roles, expert, get_facts, layer, mark, role
from edgewise.tensors import streamed
from edgewise_plugins.absorb import replace as put
from edgewise_plugins.moe.mixtures import routers, state
from edgewise_plugins.prune.parts import drop_unused, integers
from edgewise_plugins.views import take_rows

NUMBERS = ("router.bias", "router.correction")  # that add one for each expert
ROUTING = ("router", "router.probabilities", "router.gates", *NUMBERS)  # whose last axis is the experts
CHOSEN = ("router.chosen", "router.kept", "router.normalized", "router.scaled")  # whose last axis is the active ones


def remove_experts(model: ir.Model, number: int, left: Sequence[int]) -> None:
    """Leave these experts in a layer, which are numbered anew in their order."""
    facts, roles = get_facts(model), Roles.of(model)
    before = facts.experts[number]
    assert before is not None
    if before.groups > 1:
        raise GraphError(f"layer {number} chooses its experts in {before.groups} groups: none can be taken out of one")
    router = routers(model)[number]
    router.replace(take_rows(router.matrix, np.array(left)))
    for part in NUMBERS:
        _leave(roles.maybe(part, number), left)
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
    state(model, number, replace(before, count=len(left), evaluated=None))


def give_to(model: ir.Model, number: int, active: int) -> None:
    """Give each token of a layer to so many experts."""
    roles = Roles.of(model)
    top, before = roles.one("router.top", number), get_facts(model).experts[number]
    assert before is not None
    top.replace_input_with(1, integers(model, f"{top.name}.count", [active]))
    for node in [top, *(node for part in CHOSEN for node in roles.all(part, number))]:
        for output in node.outputs:
            if output.shape is not None and output.shape[-1] == before.active:
                output.shape = ir.Shape([*output.shape[:-1], active])
    drop_unused(model.graph)
    state(model, number, replace(before, active=active, evaluated=None))


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


def _leave(add: ir.Node | None, left: Sequence[int]) -> None:
    """Numbers of the experts that stay, in what is added to all."""
    for value in add.inputs if add else ():
        if value is not None and value.const_value is not None:
            put(value, take_rows(streamed(value.const_value), np.array(left)))
            value.shape = ir.Shape([len(left)])


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
