"""plugins, moe: a mixture of experts in the place of an MLP: the canonical form, with a gate of 1 for those chosen.

y = shared(x) + sum over the experts chosen of expert(x)      chosen: the largest few of softmax(x Wr)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from edgewise.facts import Experts
from edgewise.graph import Roles
from edgewise.tensors import Streamed, constant, transpose
from edgewise_plugins.moe.insert import Insert
from edgewise_plugins.moe.mixtures import state
from edgewise_plugins.prune.parts import drop_unused

REPLACED = ("mlp.gate", "mlp.up", "mlp.activation", "mlp.product", "mlp.down")


@dataclass(frozen=True)
class Unit:
    """A gated unit: gate and up `[neurons, hidden]`, down `[hidden, neurons]`."""

    gate: Streamed
    up: Streamed
    down: Streamed


def put_mixture(
    model: ir.Model,
    number: int,
    shared: Unit | None,
    experts: Sequence[Unit],
    router: np.ndarray,
    active: int,
    offset: np.ndarray | None,
) -> None:
    """Replace the MLP of a layer. router: `[experts, hidden]`; offset: `[hidden]`, added to what the mixture gives."""
    roles = Roles.of(model)
    gate, down = roles.one("mlp.gate", number), roles.one("mlp.down", number)
    x, y = gate.inputs[0], down.outputs[0]
    assert x is not None
    assert y.shape is not None
    mixture = _Mixture(model, roles, number, x, y.shape.dims)
    gates = mixture.gates(router, active)
    total = mixture.sum([mixture.expert(unit, index, gates[index]) for index, unit in enumerate(experts)])
    if shared is not None:
        total = mixture.add_shared(total, shared)
    if offset is not None:
        total = mixture.add_offset(total, offset)
    ir.convenience.replace_all_uses_with(y, total)
    for node in reversed([node for role in REPLACED for node in roles.all(role, number)]):
        model.graph.remove(node, safe=True)
    drop_unused(model.graph)
    state(model, number, Experts(len(experts), active, normalized=False, equal=True))


class _Mixture:
    """The nodes of one, one after the other."""

    def __init__(self, model: ir.Model, roles: Roles, number: int, x: ir.Value, shape: Sequence[int | ir.SymbolicDim]):
        down = roles.one("mlp.down", number)
        self.roles, self.number, self.x, self.shape = roles, number, x, tuple(shape)
        self.path = str(down.name).rpartition(".")[0]
        self.insert = Insert(model, down, number, self.path)

    def gates(self, router: np.ndarray, active: int) -> Sequence[ir.Value]:
        """1 or 0 for each expert."""
        count, tokens = len(router), self.shape[:-1]
        op, wide, some = self.insert.op, (*tokens, count), (*tokens, active)
        logits = self.multiply("router", self.x, "gate", constant(router), count)
        scores = op("router.probabilities", "Softmax", logits, name="gate.probabilities", shape=wide, axis=-1)
        outputs = [("gate.top", some, ir.DataType.FLOAT), ("gate.chosen", some, ir.DataType.INT64)]
        values, chosen = self.insert.node("router.top", "TopK", [scores, self.insert.integers(active)], outputs)
        ones = self.filled("router.normalized", values, "gate.ones", 1)
        zeros = self.filled("router.gates", scores, "gate.zeros", 0)
        found = op("router.gates", "ScatterElements", zeros, chosen, ones, name="gate.gates", shape=wide, axis=-1)
        each = [(f"gate.gates.{index}", (*tokens, 1), ir.DataType.FLOAT) for index in range(count)]
        return self.insert.node("router.gates", "Split", [found], each, axis=-1, num_outputs=count)

    def filled(self, role: str, like: ir.Value, name: str, value: float) -> ir.Value:
        assert like.shape is not None
        sizes = self.insert.op(role, "Shape", like, name=f"{name}.sizes", shape=(3,), dtype=ir.DataType.INT64)
        filling = ir.tensor(np.array([value], np.float32))
        return self.insert.op(role, "ConstantOfShape", sizes, name=name, shape=like.shape.dims, value=filling)

    def expert(self, unit: Unit, index: int, gate: ir.Value) -> ir.Value:
        y = self.gated("expert", unit, f"experts.{index}", index)
        name = f"experts.{index}.weighted"
        return self.insert.op("expert.weighted", "Mul", y, gate, name=name, shape=self.shape, expert=index)

    def sum(self, parts: Sequence[ir.Value]) -> ir.Value:
        return self.insert.op("expert.sum", "Sum", *parts, name="experts.sum", shape=self.shape)

    def add_shared(self, total: ir.Value, unit: Unit) -> ir.Value:
        y = self.gated("shared", unit, "shared_experts", None)
        return self.insert.op("shared.sum", "Add", total, y, name="shared_experts.sum", shape=self.shape)

    def add_offset(self, total: ir.Value, offset: np.ndarray) -> ir.Value:
        vector = self.insert.weight(f"{self.path}.experts.bias", constant(offset))
        return self.insert.op("mlp.down.bias", "Add", total, vector, name="experts.biased", shape=self.shape)

    def gated(self, part: str, unit: Unit, name: str, expert: int | None) -> ir.Value:
        """What a unit makes of x, with the activation that the MLP had."""
        width = unit.gate.dims[0]
        multiply = partial(self.multiply, expert=expert)
        gate = multiply(f"{part}.gate", self.x, f"{name}.gate_proj", unit.gate, width)
        up = multiply(f"{part}.up", self.x, f"{name}.up_proj", unit.up, width)
        active, shape = self.activated(part, gate, name, width, expert), (*self.shape[:-1], width)
        product = self.insert.op(
            f"{part}.product", "Mul", active, up, name=f"{name}.product", shape=shape, expert=expert
        )
        return multiply(f"{part}.down", product, f"{name}.down_proj", unit.down, unit.down.dims[0])

    def activated(self, part: str, gate: ir.Value, name: str, width: int, expert: int | None) -> ir.Value:
        """Copies of the nodes of the MLP's activation."""
        copies = {self.roles.one("mlp.gate", self.number).outputs[0]: gate}
        value = gate
        for index, node in enumerate(self.roles.all("mlp.activation", self.number)):
            inputs = [copies.get(taken, taken) for taken in node.inputs if taken is not None]
            attributes = {key: attribute.value for key, attribute in node.attributes.items()}
            shape = (*self.shape[:-1], width)
            value = self.insert.op(
                f"{part}.activation",
                node.op_type,
                *inputs,
                name=f"{name}.activation.{index}",
                shape=shape,
                expert=expert,
                **attributes,
            )
            copies[node.outputs[0]] = value
        return value

    def multiply(
        self, role: str, x: ir.Value, name: str, matrix: Streamed, width: int, expert: int | None = None
    ) -> ir.Value:
        """x times a matrix `[width, features]`."""
        weight = self.insert.weight(f"{self.path}.{name}.weight", transpose(matrix))
        shape = (*self.shape[:-1], width)
        return self.insert.op(role, "MatMul", x, weight, name=name, shape=shape, expert=expert)
