"""tests: graphs of one operator, for a lint to look at."""

from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise_targets.step import CONTRIB


def value(name: str, dtype: ir.DataType = ir.DataType.FLOAT, shape: tuple[int | str, ...] = (1, 64)) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def weight(name: str, array: np.ndarray) -> ir.Value:
    made = value(name, ir.DataType.from_numpy(array.dtype), array.shape)
    made.const_value = ir.tensor(array, name=name)
    return made


def graph(
    op_type: str,
    inputs: list[ir.Value | None],
    attributes: dict[str, Any] | None = None,
    *,
    domain: str = CONTRIB,
    outputs: int = 1,
    opset: int = 23,
    ir_version: int = 10,
) -> ir.Model:
    """A graph of one operator called `gate`."""
    node = ir.node(op_type, inputs, attributes=attributes or {}, domain=domain, name="gate", num_outputs=outputs)
    for index, output in enumerate(node.outputs):
        output.name = f"y{index}"
    given = [each for each in inputs if each is not None]
    made = ir.Graph(
        [each for each in given if each.const_value is None],
        node.outputs[:1],
        nodes=[node],
        initializers=[each for each in given if each.const_value is not None],
        opset_imports={"": opset, CONTRIB: 1},
    )
    return ir.Model(made, ir_version=ir_version)


def product(*, zero_points: np.ndarray | None = None, scales: type = np.float32, **attributes: int) -> ir.Model:
    """One MatMulNBits, of 64 columns and 8 rows."""
    attributes = {"K": 64, "N": 8, "bits": 4, "block_size": 32, "accuracy_level": 4, **attributes}
    inputs = [value("x"), weight("packed", np.zeros((8, 2, 16), np.uint8)), weight("scales", np.ones((8, 2), scales))]
    if zero_points is not None:
        inputs.append(weight("zero_points", zero_points))
    return graph("MatMulNBits", list(inputs), attributes)
