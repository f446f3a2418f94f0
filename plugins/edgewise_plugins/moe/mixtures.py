"""plugins, moe: which layers of a model are mixtures of experts, and the nodes and facts that passes change."""

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from edgewise.errors import GraphError, OptionError
from edgewise.facts import Experts
from edgewise.graph import Linear, get_facts, linears, set_facts


def mixtures(model: ir.Model) -> dict[int, Experts]:
    """By layer; GraphError for a dense model."""
    found = {number: mixture for number, mixture in enumerate(get_facts(model).experts) if mixture is not None}
    if not found:
        raise GraphError("the model is dense: no layer has a mixture of experts")
    return found


def refuse_count(found: Mapping[int, Experts], keep: int) -> None:
    """Raises OptionError where so many experts cannot be left."""
    for number, mixture in found.items():
        if not mixture.active <= keep <= mixture.count:
            raise OptionError(
                f"keep: layer {number} has {mixture.count} experts, and gives each token to {mixture.active}: "
                f"{keep} is not between them"
            )


def experts_of(model: ir.Model, number: int) -> list[dict[str, Linear]]:
    """The matrices of each expert of a layer, by role."""
    found: list[dict[str, Linear]] = []
    for linear in linears(model):
        if linear.layer == number and linear.expert is not None:
            found.extend({} for _ in range(linear.expert + 1 - len(found)))
            found[linear.expert][linear.role] = linear
    return found


def products_of(model: ir.Model, number: int) -> list[str]:
    """The names of what enters the last matrix of each expert of a layer."""
    inputs = [linears["expert.down"].node.inputs[0] for linears in experts_of(model, number)]
    return [str(value.name) for value in inputs if value is not None]


def routers(model: ir.Model) -> dict[int, Linear]:
    """By layer."""
    return {linear.layer: linear for linear in linears(model) if linear.role == "router" and linear.layer is not None}


def state(model: ir.Model, number: int, experts: Experts) -> None:
    """Give the facts of a layer's mixture."""
    facts = get_facts(model)
    before = facts.experts or (None,) * facts.layers
    layers = tuple(experts if i == number else other for i, other in enumerate(before))
    set_facts(model, replace(facts, experts=layers))
