"""plugins, moe: nodes put into a layer of the graph, one after the other, with their roles, shapes and names."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.graph import mark, state_expert
from edgewise.tensors import Streamed, constant

Shape = Sequence[int | str | ir.SymbolicDim]
FLOAT = ir.DataType.FLOAT


@dataclass
class Insert:
    """Nodes after `after`, in its layer; `path` begins the names of what they give."""

    model: ir.Model
    after: ir.Node
    layer: int
    path: str

    def op(
        self,
        role: str,
        op_type: str,
        *inputs: ir.Value,
        name: str,
        shape: Shape,
        dtype: ir.DataType = FLOAT,
        expert: int | None = None,
        **attributes: int | float | str | ir.TensorProtocol,
    ) -> ir.Value:
        """What an operator of one output gives."""
        (value,) = self.node(role, op_type, inputs, [(name, shape, dtype)], expert=expert, **attributes)
        return value

    def node(
        self,
        role: str,
        op_type: str,
        inputs: Sequence[ir.Value],
        outputs: Sequence[tuple[str, Shape, ir.DataType]],
        *,
        expert: int | None = None,
        **attributes: int | float | str | ir.TensorProtocol,
    ) -> Sequence[ir.Value]:
        node = ir.node(op_type, inputs, attributes, num_outputs=len(outputs), name=f"{self.path}.{outputs[0][0]}")
        for value, (name, shape, dtype) in zip(node.outputs, outputs, strict=True):
            value.name, value.shape, value.type = f"{self.path}.{name}", ir.Shape(shape), ir.TensorType(dtype)
        mark(node, role, self.layer)
        if expert is not None:
            state_expert(node, expert)
        self.after.append(node)
        self.after = node
        return node.outputs

    def weight(self, name: str, tensor: Streamed) -> ir.Value:
        """An initializer, whose name is not below the path."""
        tensor.name = name
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.dims), const_value=tensor)
        self.model.graph.register_initializer(value)
        return value

    def integers(self, *numbers: int) -> ir.Value:
        """A constant vector, one for all who ask for the same."""
        name = f"integers.{'_'.join(map(str, numbers))}"  # as exporters call them
        if name in self.model.graph.initializers:
            return self.model.graph.initializers[name]
        return self.weight(name, constant(np.array(numbers, np.int64)))
