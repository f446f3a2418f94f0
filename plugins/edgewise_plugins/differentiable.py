"""plugins: a decoder layer of the canonical graph as a function that torch can differentiate.

Operators do what their ONNX specification (opset 23) says, on sequences without padding and without a past. Masks, and
whatever else does not follow from the hidden states, are computed once, by the walk.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch.nn import functional

from edgewise.calibration.walk import Walk
from edgewise.errors import GraphError
from edgewise.graph import layer

Tensor = torch.Tensor
Inputs = Sequence[Tensor | None]


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
            values[str(node.outputs[0].name)] = OPERATORS[node.op_type](node, inputs)
        return values[self.leaving]

    def tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.device)

    def columns(self, name: str) -> int:
        """The input features of a matrix, which the graph holds as `[in, out]`."""
        return self.constants[name].shape[0]


def _given(inputs: Inputs, count: int) -> list[Tensor]:
    found = [value for value in inputs[:count] if value is not None]
    assert len(found) == count
    return found


def _float(node: ir.Node, name: str, default: float) -> float:
    return node.attributes.get_float(name, default)


def _add(node: ir.Node, inputs: Inputs) -> Tensor:
    left, right = _given(inputs, 2)
    return left + right


def _mul(node: ir.Node, inputs: Inputs) -> Tensor:
    left, right = _given(inputs, 2)
    return left * right


def _matmul(node: ir.Node, inputs: Inputs) -> Tensor:
    left, right = _given(inputs, 2)
    return left @ right


def _sigmoid(node: ir.Node, inputs: Inputs) -> Tensor:
    (x,) = _given(inputs, 1)
    return x.sigmoid()


def _gelu(node: ir.Node, inputs: Inputs) -> Tensor:
    (x,) = _given(inputs, 1)
    return functional.gelu(x, approximate=node.attributes.get_string("approximate", "none"))


def _gather(node: ir.Node, inputs: Inputs) -> Tensor:
    x, order = _given(inputs, 2)
    return x.index_select(node.attributes.get_int("axis", 0), order)


def _reshape(node: ir.Node, inputs: Inputs) -> Tensor:
    x, shape = _given(inputs, 2)
    return x.reshape([size or x.shape[axis] for axis, size in enumerate(shape.tolist())])


def _rms_norm(node: ir.Node, inputs: Inputs) -> Tensor:
    x, gains = _given(inputs, 2)
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _float(node, "epsilon", 1e-5)) * gains


def _rotary(node: ir.Node, inputs: Inputs) -> Tensor:
    x, cos, sin = _given(inputs, 3)  # [sequences, length, heads * size]; tables [positions, pairs]
    heads = x.reshape(*x.shape[:2], node.attributes.get_int("num_heads", 0), -1)
    length, half = x.shape[1], cos.shape[1]
    cos, sin = cos[:length, None], sin[:length, None]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1).flatten(-2)


def _attention(node: ir.Node, inputs: Inputs) -> Tensor:
    q, k, v = _given(inputs, 3)
    mask, attributes = inputs[3], node.attributes
    assert mask is not None
    kv_heads = attributes.get_int("kv_num_heads", 0)
    groups = attributes.get_int("q_num_heads", 0) // kv_heads
    q = q.reshape(*q.shape[:2], kv_heads, groups, -1).permute(
        0, 2, 3, 1, 4
    )  # [sequences, kv_heads, groups, length, size]
    k, v = (x.reshape(*x.shape[:2], kv_heads, 1, -1).permute(0, 2, 3, 1, 4) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * _float(node, "scale", q.shape[-1] ** -0.5)
    if cap := _float(node, "softcap", 0.0):
        scores = torch.tanh(scores / cap) * cap
    scores = scores.masked_fill(~mask[:, :, None], -torch.inf)
    found: Tensor = scores.softmax(dim=-1) @ v
    return found.permute(0, 3, 1, 2, 4).flatten(-3)


OPERATORS: Mapping[str, Callable[[ir.Node, Inputs], Tensor]] = {
    "Add": _add,
    "Attention": _attention,
    "Gather": _gather,
    "Gelu": _gelu,
    "MatMul": _matmul,
    "Mul": _mul,
    "RMSNormalization": _rms_norm,
    "Reshape": _reshape,
    "RotaryEmbedding": _rotary,
    "Sigmoid": _sigmoid,
}
