"""plugins: the operators of the canonical graph as torch computes, and differentiates, them.

They do what their ONNX specification (opset 23) says, on sequences without padding and without a past: of the
attention, what enters it as a cache is empty, and what leaves it as one is not given.
"""

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir
import torch
from torch.nn import functional

Tensor = torch.Tensor
Inputs = Sequence[Tensor | None]
Outputs = tuple[Tensor, ...]
Operator = Callable[[ir.Node, Inputs], Outputs]

DTYPES = {ir.DataType.FLOAT: torch.float32, ir.DataType.INT64: torch.int64, ir.DataType.BOOL: torch.bool}


def _given(inputs: Inputs, count: int) -> list[Tensor]:
    found = [value for value in inputs[:count] if value is not None]
    assert len(found) == count
    return found


def _float(node: ir.Node, name: str, default: float) -> float:
    return node.attributes.get_float(name, default)


def _elementwise(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of two tensors."""

    def compute(node: ir.Node, inputs: Inputs) -> Outputs:
        left, right = _given(inputs, 2)
        return (function(left, right),)

    return compute


def _of_one(function: Callable[[Tensor], Tensor]) -> Operator:
    """An operator of one tensor."""

    def compute(node: ir.Node, inputs: Inputs) -> Outputs:
        (x,) = _given(inputs, 1)
        return (function(x),)

    return compute


def _sum(node: ir.Node, inputs: Inputs) -> Outputs:
    return (torch.stack(_given(inputs, len(inputs))).sum(dim=0),)


def _gelu(node: ir.Node, inputs: Inputs) -> Outputs:
    (x,) = _given(inputs, 1)
    return (functional.gelu(x, approximate=node.attributes.get_string("approximate", "none")),)


def _gather(node: ir.Node, inputs: Inputs) -> Outputs:
    x, indices = _given(inputs, 2)
    axis = node.attributes.get_int("axis", 0)
    if axis == 0:
        return (functional.embedding(indices, x),)
    return (x.index_select(axis, indices),)


def _transpose(node: ir.Node, inputs: Inputs) -> Outputs:
    (x,) = _given(inputs, 1)
    return (x.permute(tuple(node.attributes.get_ints("perm", tuple(reversed(range(x.dim())))))),)


def _unsqueeze(node: ir.Node, inputs: Inputs) -> Outputs:
    x, axes = _given(inputs, 2)
    for axis in sorted(axes.tolist()):
        x = x.unsqueeze(axis)
    return (x,)


def _cast(node: ir.Node, inputs: Inputs) -> Outputs:
    (x,) = _given(inputs, 1)
    return (x.to(DTYPES[ir.DataType(node.attributes.get_int("to", 1))]),)


def _cumsum(node: ir.Node, inputs: Inputs) -> Outputs:
    x, axis = _given(inputs, 2)
    return (x.cumsum(dim=int(axis)),)


def _softmax(node: ir.Node, inputs: Inputs) -> Outputs:
    (x,) = _given(inputs, 1)
    return (x.softmax(dim=node.attributes.get_int("axis", -1)),)


def _top(node: ir.Node, inputs: Inputs) -> Outputs:
    x, count = _given(inputs, 2)
    found = x.topk(int(count), dim=node.attributes.get_int("axis", -1))
    return found.values, found.indices


def _reduce_sum(node: ir.Node, inputs: Inputs) -> Outputs:
    x, axes = _given(inputs, 2)
    return (x.sum(dim=axes.tolist(), keepdim=bool(node.attributes.get_int("keepdims", 1))),)


def _shape(node: ir.Node, inputs: Inputs) -> Outputs:
    (x,) = _given(inputs, 1)
    return (torch.tensor(x.shape),)


def _zeros(node: ir.Node, inputs: Inputs) -> Outputs:
    """ConstantOfShape, of which the canonical graph takes zeros only."""
    (shape,) = _given(inputs, 1)
    return (torch.zeros(shape.tolist()),)


def _scatter(node: ir.Node, inputs: Inputs) -> Outputs:
    x, indices, updates = _given(inputs, 3)
    return (x.to(updates).scatter(node.attributes.get_int("axis", 0), indices, updates),)


def _split(node: ir.Node, inputs: Inputs) -> Outputs:
    (x,) = _given(inputs, 1)
    return x.chunk(node.attributes.get_int("num_outputs", 1), dim=node.attributes.get_int("axis", 0))


def _reshape(node: ir.Node, inputs: Inputs) -> Outputs:
    x, shape = _given(inputs, 2)
    return (x.reshape([size or x.shape[axis] for axis, size in enumerate(shape.tolist())]),)


def _rms_norm(node: ir.Node, inputs: Inputs) -> Outputs:
    x, gains = _given(inputs, 2)
    return (x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _float(node, "epsilon", 1e-5)) * gains,)


def _rotary(node: ir.Node, inputs: Inputs) -> Outputs:
    x, cos, sin = _given(inputs, 3)  # [sequences, length, heads * size]; tables [positions, pairs]
    heads = x.reshape(*x.shape[:2], node.attributes.get_int("num_heads", 0), -1)
    length, half = x.shape[1], cos.shape[1]
    cos, sin = cos[:length, None], sin[:length, None]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return (torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1).flatten(-2),)


def _attention(node: ir.Node, inputs: Inputs) -> Outputs:
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
    return (found.permute(0, 3, 1, 2, 4).flatten(-3),)


OPERATORS: Mapping[str, Operator] = {
    "Add": _elementwise(torch.add),
    "And": _elementwise(torch.logical_and),
    "Attention": _attention,
    "Cast": _cast,
    "ConstantOfShape": _zeros,
    "CumSum": _cumsum,
    "Div": _elementwise(torch.div),
    "Gather": _gather,
    "Gelu": _gelu,
    "Less": _elementwise(torch.lt),
    "LessOrEqual": _elementwise(torch.le),
    "MatMul": _elementwise(torch.matmul),
    "Mul": _elementwise(torch.mul),
    "RMSNormalization": _rms_norm,
    "ReduceSum": _reduce_sum,
    "Reshape": _reshape,
    "RotaryEmbedding": _rotary,
    "ScatterElements": _scatter,
    "Shape": _shape,
    "Sigmoid": _of_one(torch.sigmoid),
    "Softmax": _softmax,
    "Split": _split,
    "Sub": _elementwise(torch.sub),
    "Sum": _sum,
    "Tanh": _of_one(torch.tanh),
    "TopK": _top,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
