"""exporters, decoder: one layer under construction: its norms and projections, with roles and checkpoint names."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.facts import Attention
from edgewise.tensors import map_rows, slice_rows, transpose
from edgewise_exporters.decoder.architecture import Architecture
from edgewise_exporters.decoder.builder import TOKENS, Builder, Shape
from edgewise_exporters.decoder.weights import Weights


@dataclass(frozen=True)
class Layer:
    """A layer, or with `index` None what is around the layers."""

    builder: Builder
    weights: Weights
    architecture: Architecture
    index: int | None
    path: str  # of its modules in the checkpoint: "model.layers.3."

    @property
    def attention(self) -> Attention:
        assert self.index is not None
        return self.architecture.facts.attention[self.index]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Output features of each projection."""
        a, hidden = self.attention, self.architecture.facts.hidden_size
        q, kv, mlp = a.heads * a.head_dim, a.kv_heads * a.head_dim, self.architecture.intermediate_size
        return {
            "attention.q": q, "attention.k": kv, "attention.v": kv, "attention.o": hidden,
            "mlp.gate": mlp, "mlp.up": mlp, "mlp.down": hidden,
        }

    def op(self, role: str, op_type: str, *inputs: ir.Value, shape: Shape, name: str, **attributes: Any) -> ir.Value:
        name = f"{self.path}{name}"
        return self.builder.op(op_type, *inputs, name=name, shape=shape, role=role, layer=self.index, **attributes)

    def linear(self, role: str, x: ir.Value, *, bias: bool) -> ir.Value:
        """A projection `[batch, sequence, K]` to `[batch, sequence, N]`, from its own matrix or its rows of a shared one."""
        modules = self.architecture.family.projections
        module, columns = modules[role], int(x.shape[-1])  # type: ignore[index, arg-type]
        sharing = [other for other in modules if modules[other] == module]
        start, total = self._rows_before(role, sharing), sum(self.rows[other] for other in sharing)
        stop, name = start + self.rows[role], f"{self.path}{module}"
        matrix = self.weights.take(f"{name}.weight", total, columns)
        if len(sharing) > 1:
            name = f"{name}.{role.split('.')[-1]}"
            matrix = slice_rows(matrix, start, stop)
        weight = self.builder.initializer(transpose(matrix), f"{name}.weight")
        shape = (*TOKENS, stop - start)
        y = self.builder.op("MatMul", x, weight, name=name, shape=shape, role=role, layer=self.index)
        if not bias:
            return y
        vector = slice_rows(self.weights.take(f"{self.path}{module}.bias", total), start, stop)
        added = self.builder.initializer(vector, f"{name}.bias")
        return self.builder.op(
            "Add", y, added, name=f"{name}.biased", shape=shape, role=f"{role}.bias", layer=self.index
        )

    def norm(self, role: str, x: ir.Value, *, size: int, module: str) -> ir.Value:
        """RMS norm of the last axis (arXiv 1910.07467)."""
        weight = self.weights.take(f"{self.path}{module}.weight", size)
        if offset := self.architecture.family.norm_offset:
            weight = map_rows(weight, lambda rows: rows + np.float32(offset))
        return self.op(
            role,
            "RMSNormalization",
            x,
            self.builder.initializer(weight, f"{self.path}{module}.weight"),
            shape=tuple(x.shape or ()),  # type: ignore[arg-type]
            name=module,
            epsilon=self.architecture.norm_epsilon,
        )

    def _rows_before(self, role: str, sharing: Sequence[str]) -> int:
        return sum(self.rows[other] for other in sharing[: sharing.index(role)])
