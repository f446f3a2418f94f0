"""targets, ort: the gated unit of the experts of a layer, as the numbers that fused operators know it by.

g * sigmoid(alpha * g) * (u + beta), where a limit is given of g at most and u from both sides
"""

from collections.abc import Mapping

import onnx_ir as ir

from edgewise.graph import Roles

SILU = {"activation_alpha": 1.0, "activation_beta": 0.0}

Numbers = Mapping[str, float]


def gated_unit(roles: Roles, layer: int) -> Numbers | None:
    """The attributes of the operator; None for a unit that it does not have."""
    active, product = (roles.all(f"expert.{part}", layer) for part in ("activation", "product"))
    kinds = [{node.op_type for node in nodes} for nodes in (active, product)]
    if kinds == [{"Sigmoid", "Mul"}, {"Mul"}]:
        return SILU
    if kinds != [{"Min", "Sigmoid", "Mul"}, {"Clip", "Add", "Mul"}]:
        return None
    constants = [_constants(nodes) for nodes in (active, product)]
    alphas, limits = (constants[0].get(kind, set()) for kind in ("Mul", "Min"))
    betas, bounds = (constants[1].get(kind, set()) for kind in ("Add", "Clip"))
    if {len(some) for some in (alphas, limits, betas)} != {1} or bounds != {-max(limits), max(limits)}:
        return None
    return {"activation_alpha": alphas.pop(), "activation_beta": betas.pop(), "swiglu_limit": limits.pop()}


def _constants(nodes: list[ir.Node]) -> dict[str, set[float]]:
    """The numbers that operators read, by their kind."""
    found: dict[str, set[float]] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None and value.const_value is not None:
                found.setdefault(node.op_type, set()).add(float(value.const_value.numpy()))
    return found
