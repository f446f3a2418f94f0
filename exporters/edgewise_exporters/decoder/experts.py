"""exporters, decoder: a mixture of experts in standard operators, dense: every expert computes every token.

y = sum over experts e of g[e] * down(act(gate(x)) * up(x)), with gates g of its router;
and shared(x) where there is one for every token, or sigmoid(x ws) * shared(x)
"""

from dataclasses import replace

import onnx_ir as ir

from edgewise.facts import Experts
from edgewise_exporters.decoder.builder import TOKENS
from edgewise_exporters.decoder.gated import gated
from edgewise_exporters.decoder.layer import Layer
from edgewise_exporters.decoder.mixture import Mixture, SharedExpert
from edgewise_exporters.decoder.packed.matrix import Matrix
from edgewise_exporters.decoder.routing import route
from edgewise_exporters.decoder.stacks import FUSED, Weight, are_stacked, by_columns, by_rows


def mix(layer: Layer, x: ir.Value, experts: Experts, mixture: Mixture) -> ir.Value:
    """What the experts of a layer make of `x`, `[batch, sequence, hidden]`."""
    stacked = mixture.stacks == "columns" or are_stacked(layer)
    if stacked and mixture.stacks == "rows":
        mixture = replace(mixture, router="mlp.gate", experts=FUSED)
    shape = (*TOKENS, layer.architecture.facts.hidden_size)
    parts = []
    for number, gate in enumerate(route(layer, x, experts, mixture)):
        own, name = replace(layer, expert=number), f"{mixture.experts}.{number}"
        y = _expert(own, x, mixture, number, experts.count if stacked else 0)
        parts.append(own.op("expert.weighted", "Mul", y, gate, name=f"{name}.weighted", shape=shape))
    y = layer.op("expert.sum", "Sum", *parts, name="mlp.experts.sum", shape=shape)
    if mixture.shared is None or not layer.architecture.shared_size:
        return y
    other = _shared(layer, x, mixture.shared)
    return layer.op("shared.sum", "Add", y, other, name=f"{mixture.shared.module}.sum", shape=shape)


def _expert(layer: Layer, x: ir.Value, mixture: Mixture, number: int, stacked: int) -> ir.Value:
    """One expert; with `stacked` its matrices are parts of the tensors that hold so many experts."""
    size, hidden = layer.architecture.expert_size, layer.architecture.facts.hidden_size
    name = f"{mixture.experts}.{number}"

    def weight(role: str, module: str) -> Weight:
        if mixture.stacks == "columns":
            return by_columns(layer, role, number, stacked)
        if stacked:
            return by_rows(layer, role, number, stacked)
        rows, columns = (hidden, size) if role == "expert.down" else (size, hidden)
        return layer.weights.take_matrix(f"{layer.path}{module}", rows, columns), None

    def linear(role: str, value: ir.Value) -> ir.Value:
        part = f"{role.rpartition('.')[2]}_proj" if stacked else mixture.modules[role]
        return layer.multiply(role, value, f"{name}.{part}", *weight(role, f"{name}.{part}"))

    return gated(layer, x, "expert", linear, name=name, size=size)


def _shared(layer: Layer, x: ir.Value, expert: SharedExpert) -> ir.Value:
    """The expert for every token, times a gate of its own where it has one."""
    size, hidden = layer.architecture.shared_size, layer.architecture.facts.hidden_size

    def linear(role: str, value: ir.Value) -> ir.Value:
        name = f"{expert.module}.{role.rpartition('.')[2]}_proj"
        shape = (hidden, size) if role == "shared.down" else (size, hidden)
        return layer.multiply(role, value, name, layer.weights.take_matrix(f"{layer.path}{name}", *shape))

    y = gated(layer, x, "shared", linear, name=expert.module, size=size)
    if expert.gate is None:
        return y
    matrix = Matrix(layer.weights.take(f"{layer.path}{expert.gate}.weight", 1, hidden))
    logit = layer.multiply("shared.router", x, expert.gate, matrix)
    gate = layer.op("shared.weighted", "Sigmoid", logit, name=f"{expert.gate}.sigmoid", shape=(*TOKENS, 1))
    return layer.op("shared.weighted", "Mul", y, gate, name=f"{expert.module}.weighted", shape=(*TOKENS, hidden))
