"""exporters, decoder: a graph as it grows: nodes in order, with their roles, and weights that stay on disk."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.graph import IR_VERSION, OPSET, mark
from edgewise.tensors import Streamed, constant

FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL

Shape = Sequence[int | str]

BATCH, SEQUENCE, TOTAL = "batch_size", "sequence_length", "total_sequence_length"  # as other runtimes look for them
TOKENS = (BATCH, SEQUENCE)
SLOTS = (BATCH, TOTAL)


class Builder:
    """Nodes and initializers of one graph; names are the paths of the checkpoint's modules."""

    def __init__(self) -> None:
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self._ordered: dict[tuple[str, bytes], ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def initializer(self, tensor: Streamed, name: str) -> ir.Value:
        """A constant tensor under that name; the same value when it is asked for again."""
        if name not in self.initializers:
            tensor.name = name
            kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.dims)
            self.initializers[name] = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
        return self.initializers[name]

    def integers(self, *values: int) -> ir.Value:
        """A constant vector; equal ones are one value."""
        name = f"integers.{'_'.join(map(str, values))}"
        return self.initializer(constant(np.array(values, np.int64)), name)

    def scalar(self, value: float, name: str) -> ir.Value:
        return self.initializer(constant(np.array(value, np.float32)), name)

    def ordered(self, x: ir.Value, order: np.ndarray | None, role: str, layer: int | None = None) -> ir.Value:
        """Features of `x`, its last axis, in the order that a weight has them; once for all weights of that order."""
        if order is None:
            return x
        key = (str(x.name), order.tobytes())
        if key not in self._ordered:
            name = f"{x.name}.{role.rpartition('.')[2]}_order"
            indices = self.initializer(constant(order.astype(np.int64)), f"{name}.indices")
            place: dict[str, Any] = {"role": f"{role}.order", "layer": layer, "shape": (*TOKENS, len(order))}
            self._ordered[key] = self.op("Gather", x, indices, name=name, axis=-1, **place)
        return self._ordered[key]

    def op(
        self,
        op_type: str,
        *inputs: ir.Value,
        name: str,
        shape: Shape,
        dtype: ir.DataType = FLOAT,
        role: str | None = None,
        layer: int | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """The output of a new node; node and output are called `name`."""
        node = ir.node(op_type, inputs, attributes=attributes, name=name)
        return self.add(node, [(name, shape, dtype)], role, layer)[0]

    def add(
        self,
        node: ir.Node,
        outputs: Sequence[tuple[str, Shape, ir.DataType]],
        role: str | None = None,
        layer: int | None = None,
    ) -> Sequence[ir.Value]:
        """The outputs of a node that is appended."""
        for value, (name, shape, dtype) in zip(node.outputs, outputs, strict=True):
            value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(dtype)
        if role is not None:
            mark(node, role, layer)
        self.nodes.append(node)
        return node.outputs

    def model(self, name: str) -> ir.Model:
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self.nodes,
            initializers=list(self.initializers.values()),
            opset_imports={"": OPSET},
            name=name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="edgewise")
