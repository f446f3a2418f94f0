"""targets: small constants of a graph, each there once, however many nodes read it."""

import numpy as np
import onnx_ir as ir

from edgewise.tensors import constant
from edgewise_targets.step import initializer


def scalar(graph: ir.Graph, number: float) -> ir.Value:
    """A number in float32."""
    return initializer(graph, constant(np.array(number, np.float32)), f"scalar.{number:.9g}")


def integers(graph: ir.Graph, *values: int) -> ir.Value:
    """A vector in int64, as the canonical graph calls it, too."""
    return initializer(graph, constant(np.array(values, np.int64)), f"integers.{'_'.join(map(str, values))}")
