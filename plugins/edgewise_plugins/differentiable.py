"""plugins: a decoder layer of the canonical graph as a function that torch can differentiate.

Masks, and whatever else does not follow from the hidden states, are computed once, by the walk.
"""

from collections.abc import Mapping

import numpy as np
import torch

from edgewise.calibration.walk import Walk
from edgewise.errors import GraphError
from edgewise.graph import layer
from edgewise_plugins.operators import OPERATORS

Tensor = torch.Tensor


class Layer:
    """One layer, that the walk is at: hidden states `[sequences, length, hidden]` in, hidden states out.

    >>> outputs = Layer(walk, 3)(hidden, {"model.layers.3.mlp.down_proj.weight": weight})

    Weights are those of the model when the object is made, but for what a call is given: by the name of the
    initializer, in its shape. It runs on a GPU where torch has one. Raises GraphError for an operator that has no
    derivative here.
    """

    def __init__(self, walk: Walk, index: int) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.entering, self.leaving = f"hidden.{index}", f"hidden.{index + 1}"
        self.nodes = [node for node in walk.model.graph if layer(node) == index]
        for node in self.nodes:
            if node.op_type not in OPERATORS:
                raise GraphError(
                    f"node '{node.name}': nothing is learned through '{node.op_type}'; quantize layer {index} by 'gptq'"
                )
        self.constants = {name: self.tensor(array) for name, array in walk.constants(index).items()}

    def __call__(self, hidden: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        values = {**self.constants, **weights, self.entering: hidden}
        for node in self.nodes:
            inputs = [None if value is None else values.get(str(value.name)) for value in node.inputs]
            outputs = OPERATORS[node.op_type](node, inputs)
            values |= {str(value.name): tensor for value, tensor in zip(node.outputs, outputs, strict=False)}
        return values[self.leaving]

    def tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.device)

    def columns(self, name: str) -> int:
        """The input features of a matrix, which the graph holds as `[in, out]`."""
        return self.constants[name].shape[0]
