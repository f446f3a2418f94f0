"""exporters, decoder: one layer under construction: its norms and projections, with roles and checkpoint names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.facts import Attention
from edgewise.graph import state_expert
from edgewise.tensors import Streamed, map_rows, transpose
from edgewise_exporters.decoder.architecture import Architecture
from edgewise_exporters.decoder.builder import TOKENS, Builder, Shape
from edgewise_exporters.decoder.packed.matrix import Matrix
from edgewise_exporters.decoder.weights import Weights


@dataclass(frozen=True)
class Layer:
    """A layer, or with `index` None what is around the layers."""

    builder: Builder
    weights: Weights
    architecture: Architecture
    index: int | None
    path: str  # of its modules in the checkpoint: "model.layers.3."
    expert: int | None = None  # whose nodes these are

    @property
    def attention(self) -> Attention:
        assert self.index is not None
        return self.architecture.facts.attention[self.index]

    def op(self, role: str, op_type: str, *inputs: ir.Value, name: str, shape: Shape, **attributes: Any) -> ir.Value:
        """The output of a node of this layer, under the path of its module."""
        path = f"{self.path}{name}"
        value = self.builder.op(op_type, *inputs, name=path, shape=shape, role=role, layer=self.index, **attributes)
        if self.expert is not None and (node := value.producer()):
            state_expert(node, self.expert)
        return value

    def linear(self, role: str, x: ir.Value, *, bias: bool) -> ir.Value:
        """A projection, `[batch, sequence, in]` to `[batch, sequence, out]`."""
        modules, (rows, columns) = self.architecture.family.projections, self.features(role)
        sharing = [other for other in modules if modules[other] == modules[role]]
        start = sum(self.features(other)[0] for other in sharing[: sharing.index(role)])
        total, own = sum(self.features(other)[0] for other in sharing), (start, start + rows)
        path = f"{self.path}{modules[role]}"
        matrix = self.weights.take_matrix(path, total, columns, rows=own)
        vector = self.weights.take(f"{path}.bias", total, rows=own) if bias else None
        if len(sharing) > 1:
            path = f"{path}.{role.split('.')[-1]}"
        return self.multiply(role, x, path.removeprefix(self.path), matrix, vector)

    def multiply(self, role: str, x: ir.Value, name: str, matrix: Matrix, vector: Streamed | None = None) -> ir.Value:
        """`x` times a matrix that is taken already, and a bias; the weights are called after the module `name`."""
        path, shape = f"{self.path}{name}", (*TOKENS, matrix.tensor.dims[0])
        x = self.builder.ordered(x, matrix.order, role, self.index)
        weight = self.builder.initializer(transpose(matrix.tensor), f"{path}.weight")
        y = self.op(role, "MatMul", x, weight, name=name, shape=shape)
        if vector is None:
            return y
        added = self.builder.initializer(vector, f"{path}.bias")
        return self.op(f"{role}.bias", "Add", y, added, name=f"{name}.biased", shape=shape)

    def norm(self, role: str, x: ir.Value, *, module: str, size: int, axes: Sequence[int | str] = TOKENS) -> ir.Value:
        """RMS norm (arXiv 1910.07467) of `[*axes, size]` over its last axis."""
        name = f"{self.path}{module}.weight"
        weight = self.weights.take(name, size)
        if offset := self.architecture.family.norm_offset:
            weight = map_rows(weight, lambda rows: rows + np.float32(offset))
        gain, epsilon = self.builder.initializer(weight, name), self.architecture.norm_epsilon
        return self.op(role, "RMSNormalization", x, gain, name=module, shape=(*axes, size), epsilon=epsilon)

    def block_norm(self, role: str, x: ir.Value) -> ir.Value:
        """The norm before or after a block; `x` itself in a family that has none there."""
        module = self.architecture.family.norms.get(role)
        return x if module is None else self.norm(role, x, module=module, size=self.architecture.facts.hidden_size)

    def features(self, role: str) -> tuple[int, int]:
        """Output and input features of a projection."""
        a, hidden, wide = self.attention, self.architecture.facts.hidden_size, self.architecture.intermediate_size
        return {
            "attention.q": (a.heads * a.head_dim, hidden),
            "attention.k": (a.kv_heads * a.head_dim, hidden),
            "attention.v": (a.kv_heads * a.head_dim, hidden),
            "attention.o": (hidden, a.heads * a.head_dim),
            "mlp.gate": (wide, hidden),
            "mlp.up": (wide, hidden),
            "mlp.down": (hidden, wide),
        }[role]
