"""exporters, foreign: GELU (arXiv 1606.08415) spelled out in arithmetic becomes the operator, where runs agree."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.passes import Pass
from edgewise_exporters.decoder.builder import FLOAT
from edgewise_exporters.foreign.cases import agree
from edgewise_exporters.foreign.onto import Onto, alone
from edgewise_exporters.foreign.region import Region, run

KINDS = {"Erf": "none", "Tanh": "tanh"}
DEPTH = 6  # operators before the bend, and behind it
NUMBERS = np.linspace(-9, 9, 1001, dtype=np.float32)


@dataclass(frozen=True)
class RecogniseGelus(Pass):
    """Gelu, by its error function or by the hyperbolic tangent that approximates it."""

    name: ClassVar[str] = "foreign-gelus"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for bend in [node for node in model.graph if node.op_type in KINDS]:
            for x, y in product(_before(bend), list(_behind(bend))):
                if _agrees(model, bend, x, y):
                    _take_place(bend, x, y)
                    modified = True
                    break
        return ir.passes.PassResult(model, modified)


def _before(bend: ir.Node) -> Iterator[ir.Value]:
    """What a bend is computed from, the nearest first."""
    values = [value for value in bend.inputs if value is not None]
    for _ in range(DEPTH):
        makers = [node for value in values if (node := value.producer())]
        values = [each for node in makers for each in node.inputs if each is not None and not each.is_initializer()]
        yield from dict.fromkeys(values)


def _behind(bend: ir.Node) -> Iterator[ir.Value]:
    node = bend
    for _ in range(DEPTH):
        users = list(node.outputs[0].consumers())
        if len(users) != 1 or users[0].op_type not in ("Add", "Mul"):
            return
        node = users[0]
        yield node.outputs[0]


def _agrees(model: ir.Model, bend: ir.Node, x: ir.Value, y: ir.Value) -> bool:
    region = Region.of(model, [y], [x])
    if region is None or region.inputs != (x,) or region.measured:
        return False
    builder = Onto({})
    entering = builder.input(str(x.name), FLOAT, ("numbers",))
    proto = alone(
        builder, [builder.op("Gelu", entering, name="y", shape=("numbers",), approximate=KINDS[bend.op_type])]
    )
    wanted, ours = region.run({str(x.name): NUMBERS}), run(proto, {str(x.name): NUMBERS})
    return wanted is not None and ours is not None and agree(ours[0], wanted[0])


def _take_place(bend: ir.Node, x: ir.Value, y: ir.Value) -> None:
    maker = y.producer()
    assert maker is not None
    name = f"{str(bend.name).strip('/').rpartition('/')[0].replace('/', '.')}.gelu"
    gelu = ir.node("Gelu", [x], attributes={"approximate": KINDS[bend.op_type]}, name=name)
    maker.prepend(gelu)
    ir.convenience.replace_all_uses_with(y, gelu.outputs[0])
    gelu.outputs[0].name = name
