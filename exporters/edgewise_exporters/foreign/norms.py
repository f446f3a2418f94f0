"""exporters, foreign: RMS norms (arXiv 1910.07467) spelled out in arithmetic become the operator, where runs agree."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.passes import Pass
from edgewise_exporters.decoder.builder import FLOAT
from edgewise_exporters.foreign.cases import agree
from edgewise_exporters.foreign.onto import Onto, alone
from edgewise_exporters.foreign.region import Region, run

STEPS = ("Add", "Cast", "Div", "Mul", "Pow", "Reciprocal", "Sqrt")  # from a mean to what it scales
SIZES = (3.0, 0.01)  # of random numbers: the small ones show the epsilon
TOKENS = (2, 5)


@dataclass(frozen=True)
class RecogniseNorms(Pass):
    """RMSNormalization in the place of `x / sqrt(mean(x ** 2) + epsilon) * weight`, in any order of the arithmetic."""

    name: ClassVar[str] = "foreign-norms"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for mean in [node for node in model.graph if node.op_type == "ReduceMean"]:
            if found := _find(mean):
                modified |= _take_place(model, *found)
        return ir.passes.PassResult(model, modified)


def _find(mean: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value, float] | None:
    """What is normalised, the result, the weight and the epsilon; None for a mean of something else."""
    squares = mean.inputs[0].producer() if mean.inputs[0] is not None else None
    x = squares.inputs[0] if squares is not None and squares.op_type in ("Mul", "Pow") else None
    if x is None:
        return None
    numbers: list[float] = []
    for node in _chain(mean):
        for value in node.inputs:
            tensor = value.const_value if value is not None else None
            if value is None or tensor is None:
                continue
            if numbers and node.op_type == "Mul" and tensor.size > 1 and len(tensor.shape) == 1:
                return x, node.outputs[0], value, numbers[0]
            if node.op_type == "Add" and tensor.size == 1:
                numbers.append(float(tensor.numpy().reshape(())))
    return None


def _chain(mean: ir.Node) -> Iterator[ir.Node]:
    """The operators behind a mean, for as long as each has one reader."""
    node = mean
    while len(users := list(node.outputs[0].consumers())) == 1 and users[0].op_type in STEPS:
        node = users[0]
        yield node


def _take_place(model: ir.Model, x: ir.Value, y: ir.Value, weight: ir.Value, epsilon: float) -> bool:
    region = Region.of(model, [y], [x])
    if region is None or region.inputs != (x,) or not _agrees(region, x, weight, epsilon):
        return False
    maker = y.producer()
    assert maker is not None
    name = str(weight.name).removesuffix(".weight")
    norm = ir.node("RMSNormalization", [x, weight], attributes={"epsilon": epsilon}, name=name)
    maker.prepend(norm)
    ir.convenience.replace_all_uses_with(y, norm.outputs[0])
    norm.outputs[0].name = f"{name}.normed"
    return True


def _agrees(region: Region, x: ir.Value, weight: ir.Value, epsilon: float) -> bool:
    assert weight.const_value is not None
    array = weight.const_value.numpy()
    builder = Onto({})
    entering = builder.input(str(x.name), FLOAT, ("batch", "tokens", array.size))
    gain = builder.input("weight", FLOAT, (array.size,))
    shape = ("batch", "tokens", array.size)
    proto = alone(builder, [builder.op("RMSNormalization", entering, gain, name="y", shape=shape, epsilon=epsilon)])
    for size in SIZES:
        numbers = size * np.random.default_rng(0).standard_normal((*TOKENS, array.size), np.float32)
        wanted, ours = region.run({str(x.name): numbers}), run(proto, {str(x.name): numbers, "weight": array})
        if wanted is None or ours is None or not agree(ours[0], wanted[0]):
            return False
    return True
