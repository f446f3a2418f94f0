"""exporters, decoder: a mixture of experts in standard operators, dense: every expert computes every token.

p = softmax(x Wr);   g = p of the largest few, 0 elsewhere (divided by their sum where they are normalized)
y = sum over experts e of g[e] * down(act(gate(x)) * up(x));   and sigmoid(x ws) * shared(x) where there is one
"""

from dataclasses import replace

import onnx_ir as ir

from edgewise.facts import Experts
from edgewise_exporters.decoder.builder import INT64, TOKENS
from edgewise_exporters.decoder.gated import gated
from edgewise_exporters.decoder.layer import Layer
from edgewise_exporters.decoder.mixture import Mixture
from edgewise_exporters.decoder.packed.matrix import Matrix

FUSED = "mlp.experts"  # where transformers keeps the experts of a layer as two stacks, whatever the family


def mix(layer: Layer, x: ir.Value, experts: Experts, mixture: Mixture) -> ir.Value:
    """What the experts of a layer make of `x`, `[batch, sequence, hidden]`."""
    fused = f"{layer.path}{FUSED}.gate_up_proj" in layer.weights.tensors
    names = replace(mixture, router="mlp.gate", experts=FUSED) if fused else mixture
    gates = _gates(layer, x, experts, names.router)
    shape = (*TOKENS, layer.architecture.facts.hidden_size)
    parts = []
    for number, gate in enumerate(gates):
        own, name = replace(layer, expert=number), f"{names.experts}.{number}"
        y = _expert(own, x, names, number, experts.count if fused else 0)
        parts.append(own.op("expert.weighted", "Mul", y, gate, name=f"{name}.weighted", shape=shape))
    y = layer.op("expert.sum", "Sum", *parts, name="mlp.experts.sum", shape=shape)
    if not layer.architecture.shared_size:
        return y
    return layer.op("shared.sum", "Add", y, _shared(layer, x), name="mlp.shared_expert.sum", shape=shape)


def _gates(layer: Layer, x: ir.Value, experts: Experts, module: str) -> tuple[ir.Value, ...]:
    """The weight of each expert for each token, `[batch, sequence, 1]`; 0 where it is not among the active ones."""
    builder, all_of_them, some = layer.builder, (*TOKENS, experts.count), (*TOKENS, experts.active)
    matrix = Matrix(layer.weights.take(f"{layer.path}{module}.weight", experts.count, x.shape[-1]))  # type: ignore[arg-type,index]
    logits = layer.multiply("router", x, module, matrix)
    path, wide = f"{layer.path}{module}", {"shape": all_of_them}
    probabilities = layer.op("router.probabilities", "Softmax", logits, name=f"{module}.probabilities", axis=-1, **wide)
    node = ir.node("TopK", [probabilities, builder.integers(experts.active)], num_outputs=2, name=f"{path}.top")
    outputs = [(f"{path}.top", some, ir.DataType.FLOAT), (f"{path}.chosen", some, INT64)]
    values, chosen = builder.add(node, outputs, role="router.top", layer=layer.index)
    if experts.normalized:
        role, one = "router.normalized", {"shape": (*TOKENS, 1)}
        total = layer.op(role, "ReduceSum", values, builder.integers(-1), name=f"{module}.total", keepdims=1, **one)
        values = layer.op(role, "Div", values, total, name=f"{module}.normalized", shape=some)
    role = "router.gates"
    sizes = layer.op(role, "Shape", probabilities, name=f"{module}.sizes", shape=(3,), dtype=INT64)
    zeros = layer.op(role, "ConstantOfShape", sizes, name=f"{module}.zeros", **wide)
    gates = layer.op(role, "ScatterElements", zeros, chosen, values, name=f"{module}.gates", axis=-1, **wide)
    split = ir.node("Split", [gates], {"axis": -1, "num_outputs": experts.count}, num_outputs=experts.count)
    split.name = f"{path}.split"
    each = [(f"{path}.gates.{number}", (*TOKENS, 1), ir.DataType.FLOAT) for number in range(experts.count)]
    return tuple(builder.add(split, each, role=role, layer=layer.index))


def _expert(layer: Layer, x: ir.Value, mixture: Mixture, number: int, stacked: int) -> ir.Value:
    """One expert; with `stacked` its matrices are parts of the tensors that hold so many experts."""
    size, hidden = layer.architecture.expert_size, layer.architecture.facts.hidden_size
    name = f"{mixture.experts}.{number}"

    def linear(role: str, value: ir.Value) -> ir.Value:
        rows, columns = (hidden, size) if role == "expert.down" else (size, hidden)
        if stacked:
            module = f"{name}.{role.rpartition('.')[2]}_proj"
            return layer.multiply(role, value, module, _of_stack(layer, role, number, stacked))
        module = f"{name}.{mixture.modules[role]}"
        return layer.multiply(role, value, module, layer.weights.take_matrix(f"{layer.path}{module}", rows, columns))

    return gated(layer, x, "expert", linear, name=name, size=size)


def _of_stack(layer: Layer, role: str, number: int, count: int) -> Matrix:
    size, hidden, path = layer.architecture.expert_size, layer.architecture.facts.hidden_size, f"{layer.path}{FUSED}"
    if role == "expert.down":
        return Matrix(layer.weights.take_element(f"{path}.down_proj", number, (0, hidden), count, hidden, size))
    start = size if role == "expert.up" else 0
    rows = (start, start + size)
    return Matrix(layer.weights.take_element(f"{path}.gate_up_proj", number, rows, count, 2 * size, hidden))


def _shared(layer: Layer, x: ir.Value) -> ir.Value:
    """The expert for every token, times a gate of its own."""
    size, hidden, module = layer.architecture.shared_size, layer.architecture.facts.hidden_size, "mlp.shared_expert"

    def linear(role: str, value: ir.Value) -> ir.Value:
        name = f"{module}.{role.rpartition('.')[2]}_proj"
        shape = (hidden, size) if role == "shared.down" else (size, hidden)
        return layer.multiply(role, value, name, layer.weights.take_matrix(f"{layer.path}{name}", *shape))

    y = gated(layer, x, "shared", linear, name=module, size=size)
    matrix = Matrix(layer.weights.take(f"{layer.path}{module}_gate.weight", 1, hidden))
    logit = layer.multiply("shared.router", x, f"{module}_gate", matrix)
    gate = layer.op("shared.weighted", "Sigmoid", logit, name=f"{module}_gate.sigmoid", shape=(*TOKENS, 1))
    return layer.op("shared.weighted", "Mul", y, gate, name=f"{module}.weighted", shape=(*TOKENS, hidden))
