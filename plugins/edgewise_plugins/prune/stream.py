"""plugins, prune: the residual stream: all that is as wide as it, found by following it, and cut to fewer channels.

An RMS norm over k channels of d, which hold the share s of the squares of all, divides by a mean over fewer numbers:
it gives what those channels had where its gains are multiplied by sqrt(s d / k), and its epsilon by d / k. Where the
other channels are zeros, s is 1, and nothing changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import Linear, Roles, get_facts, role, set_facts
from edgewise.tensors import constant, streamed
from edgewise_plugins import absorb
from edgewise_plugins.prune.parts import floats
from edgewise_plugins.rotate import TURN
from edgewise_plugins.views import take_columns, take_rows

WRITERS = ("attention.o", "mlp.down", "expert.down", "shared.down")
ELEMENTWISE = ("Add", "Mul", "Sum")
EPSILON = 1e-5  # of a norm that does not say it


@dataclass
class Stream:
    """What the width of a residual stream is the width of, in the order of computation.

    values: what is computed so wide. constants: vectors that are added to such or multiply it, gains of norms too.
    """

    embedding: Linear
    readers: list[Linear] = field(default_factory=list)
    writers: list[Linear] = field(default_factory=list)
    norms: list[ir.Node] = field(default_factory=list)
    values: list[ir.Value] = field(default_factory=list)
    constants: list[ir.Value] = field(default_factory=list)

    @classmethod
    def of(cls, model: ir.Model, *, needed_by: str) -> "Stream":
        """Raises GraphError, which names the node that would not compute the same with fewer channels."""
        by_node = floats(model, needed_by=needed_by)
        stream = cls(by_node[Roles.of(model).one("embedding")])
        wide: set[ir.Value | None] = set()
        for node in model.graph:
            if stream._follow(node, wide, by_node.get(node)):
                wide.add(node.outputs[0])
                stream.values.append(node.outputs[0])
        return stream

    def cut(self, model: ir.Model, left: np.ndarray) -> None:
        """Leave these channels, everywhere; norms give what they would if all others were zeros."""
        facts = get_facts(model)
        for linear in {linear.value: linear for linear in (self.embedding, *self.readers)}.values():
            linear.replace(take_columns(linear.matrix, left))
        for linear in self.writers:
            linear.replace(take_rows(linear.matrix, left))
        for value in self.constants:
            absorb.replace(value, take_rows(streamed(value.const_value), left))
            value.shape = ir.Shape([len(left)])
        for norm in self.norms:
            epsilon = norm.attributes.get_float("epsilon", EPSILON) * facts.hidden_size / len(left)
            norm.attributes.add(ir.AttrFloat32("epsilon", epsilon))
            scale_gains(norm, np.sqrt(facts.hidden_size / len(left)))
        for value in self.values:
            if value.shape is not None:
                value.shape = ir.Shape([*value.shape[:-1], len(left)])
        if turned := Roles.of(model).maybe("lm_head.weight"):
            turned.outputs[0].shape = ir.Shape([len(left), facts.vocab_size])
        set_facts(model, replace(facts, hidden_size=len(left)))

    def _follow(self, node: ir.Node, wide: set[ir.Value | None], linear: Linear | None) -> bool:
        """Sort a node in; whether what it computes is as wide as the stream."""
        if linear and (linear is self.embedding or linear.role in WRITERS) and node.inputs[0] not in wide:
            self.writers += [] if linear is self.embedding else [linear]
            return True
        if wide.isdisjoint(node.inputs):
            return False
        if linear and node.inputs[0] in wide:
            self.readers.append(linear)
            self.writers += [linear] if linear.role == TURN else []
            return linear.role == TURN
        own = [value for value in node.inputs if value is not None and value.is_initializer()]
        if node.op_type == "RMSNormalization":
            self.norms.append(node)
        elif node.op_type not in ELEMENTWISE or (
            node.op_type != "Mul" and not wide.issuperset({*node.inputs} - {*own})
        ):
            raise GraphError(
                f"node '{node.name}' (role '{role(node)}') reads the residual stream, and would not compute the same "
                "with fewer channels"
            )
        self.constants += [value for value in own if value.shape is not None and len(value.shape)]
        return True


def scale_gains(norm: ir.Node, factors: float | np.ndarray) -> None:
    """Multiply the gains of a norm, which nothing else reads."""
    gain = absorb.only_gain(norm)
    absorb.replace(gain, constant(streamed(gain.const_value).numpy().astype(np.float32) * np.float32(factors)))


def read_together(readers: list[Linear]) -> Iterator[list[Linear]]:
    """Matrices that read the same value, in the order of computation."""
    groups: dict[ir.Value | None, list[Linear]] = {}
    for linear in readers:
        groups.setdefault(linear.node.inputs[0], []).append(linear)
    yield from groups.values()
