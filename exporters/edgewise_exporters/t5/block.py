"""exporters, t5: one block under construction: its norms and products, with roles and checkpoint names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from edgewise.tensors import transpose
from edgewise_exporters.decoder.builder import TOKENS, Builder, Shape
from edgewise_exporters.decoder.weights import Weights
from edgewise_exporters.t5.architecture import Architecture
from edgewise_exporters.t5.distance import SOURCE

TEXT: Shape = (1, SOURCE)


@dataclass(frozen=True)
class Block:
    """A block of the encoder or the decoder, or with `index` None what comes after its blocks.

    Roles of the encoder begin with `encoder.`: what a pass or a lowering does to a decoder's layer leaves it alone.
    """

    builder: Builder
    weights: Weights
    architecture: Architecture
    side: str  # encoder or decoder
    index: int | None = None

    @property
    def path(self) -> str:
        """Of its modules in the checkpoint."""
        return f"{self.side}." if self.index is None else f"{self.side}.block.{self.index}.layer."

    @property
    def tokens(self) -> Shape:
        return TEXT if self.side == "encoder" else TOKENS

    @property
    def width(self) -> int:
        return self.architecture.facts.hidden_size

    def role(self, role: str) -> str:
        return f"encoder.{role}" if self.side == "encoder" else role

    def op(self, role: str, op_type: str, *inputs: ir.Value, name: str, shape: Shape, **attributes: Any) -> ir.Value:
        """The output of a node, under the path of its module."""
        path, role = f"{self.path}{name}", self.role(role)
        return self.builder.op(op_type, *inputs, name=path, shape=shape, role=role, layer=self.index, **attributes)

    def linear(
        self, role: str, x: ir.Value, module: str, rows: int, columns: int, axes: Shape | None = None
    ) -> ir.Value:
        """A product without a bias, which T5 has nowhere: `[*axes, columns]` to `[*axes, rows]`."""
        name = f"{self.path}{module}.weight"
        weight = self.builder.initializer(transpose(self.weights.take(name, rows, columns)), name)
        return self.op(role, "MatMul", x, weight, name=module, shape=(*(axes or self.tokens), rows))

    def norm(self, role: str, x: ir.Value, module: str) -> ir.Value:
        """RMS norm (arXiv 1910.07467), which T5 calls layer norm."""
        name, epsilon = f"{self.path}{module}.weight", self.architecture.norm_epsilon
        gain = self.builder.initializer(self.weights.take(name, self.width), name)
        shape = (*self.tokens, self.width)
        return self.op(role, "RMSNormalization", x, gain, name=module, shape=shape, epsilon=epsilon)

    def by_heads(self, role: str, x: ir.Value, name: str, axes: Shape | None = None) -> ir.Value:
        """`[batch, tokens, heads * size]` as `[batch, heads, tokens, size]`."""
        a, (batch, tokens) = self.architecture.facts.attention[0], axes or self.tokens
        shape = self.builder.integers(0, 0, a.heads, a.head_dim)
        split = self.op(role, "Reshape", x, shape, name=f"{name}.split", shape=(batch, tokens, a.heads, a.head_dim))
        turned = (batch, a.heads, tokens, a.head_dim)
        return self.op(role, "Transpose", split, name=f"{name}.heads", shape=turned, perm=[0, 2, 1, 3])

    def add(self, role: str, x: ir.Value, y: ir.Value, name: str) -> ir.Value:
        return self.op(role, "Add", x, y, name=name, shape=(*self.tokens, self.width))

    def projections(self, role: str, x: ir.Value, module: str, parts: Sequence[str]) -> list[ir.Value]:
        """Queries, keys, values."""
        a = self.architecture.facts.attention[0]
        sizes = a.heads * a.head_dim, self.width
        return [self.linear(f"{role}.{part}", x, f"{module}.{part}", *sizes) for part in parts]
