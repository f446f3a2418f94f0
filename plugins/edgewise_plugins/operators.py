"""plugins: the operators of the canonical graph as torch computes, and differentiates, them.

They do what their ONNX specification (opset 23) says. What is not given is left out: an attention without a past sees
its own keys, a rotary embedding without positions begins at 0.
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


def _reduce_max(node: ir.Node, inputs: Inputs) -> Outputs:
    x, axes = _given(inputs, 2)
    return (x.amax(dim=axes.tolist(), keepdim=bool(node.attributes.get_int("keepdims", 1))),)


def _where(node: ir.Node, inputs: Inputs) -> Outputs:
    condition, chosen, other = _given(inputs, 3)
    return (torch.where(condition, chosen, other),)


def _log_sum_exp(node: ir.Node, inputs: Inputs) -> Outputs:
    x, axes = _given(inputs, 2)
    return (x.logsumexp(dim=axes.tolist(), keepdim=bool(node.attributes.get_int("keepdims", 1))),)


def _shape(node: ir.Node, inputs: Inputs) -> Outputs:
    (x,) = _given(inputs, 1)
    return (torch.tensor(x.shape),)


def _constant(node: ir.Node, inputs: Inputs) -> Outputs:
    """ConstantOfShape, of which the canonical graph takes floats only."""
    (shape,) = _given(inputs, 1)
    value = node.attributes.get_tensor("value")
    return (torch.full(shape.tolist(), 0.0 if value is None else float(value.numpy().item())),)


def _gather_elements(node: ir.Node, inputs: Inputs) -> Outputs:
    x, indices = _given(inputs, 2)
    return (x.gather(node.attributes.get_int("axis", 0), indices),)


def _clip(node: ir.Node, inputs: Inputs) -> Outputs:
    x, least, most = _given(inputs, 3)
    return (x.clamp(least, most),)


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
    positions = inputs[3] if len(inputs) > 3 else None
    rows = slice(x.shape[1]) if positions is None else positions
    cos, sin, half = cos[rows].unsqueeze(-2), sin[rows].unsqueeze(-2), cos.shape[1]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return (torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1).flatten(-2),)


def _attention(node: ir.Node, inputs: Inputs) -> Outputs:
    """What it gives, the keys and values of all tokens so far, and where they are asked for, the masked scores."""
    q, k, v, mask = _given(inputs, 4)
    heads, kv_heads = (node.attributes.get_int(f"{name}_num_heads", 0) for name in ("q", "kv"))
    q, k, v = _by_head(q, heads), _by_head(k, kv_heads), _by_head(v, kv_heads)  # [sequences, heads, length, size]
    past_k, past_v = inputs[4:6] if len(inputs) > 5 else (None, None)
    if past_k is not None and past_v is not None:
        k, v = torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)
    scale, cap = _float(node, "scale", q.shape[-1] ** -0.5), _float(node, "softcap", 0.0)
    if cap or len(node.outputs) > 3:
        found, scores = _by_scores(q * scale, k, v, mask, cap)
        return found.transpose(1, 2).flatten(-2), k, v, scores
    found = functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=heads != kv_heads)
    return found.transpose(1, 2).flatten(-2), k, v


def _by_head(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _by_scores(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Attention and its scores, bent before the softmax where there is a cap: torch has no kernel for either."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2)
    scores = (torch.tanh(scores / cap) * cap if cap else scores).masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1) @ v, scores


OPERATORS: Mapping[str, Operator] = {
    "Add": _elementwise(torch.add),
    "And": _elementwise(torch.logical_and),
    "Attention": _attention,
    "Cast": _cast,
    "Clip": _clip,
    "ConstantOfShape": _constant,
    "CumSum": _cumsum,
    "Div": _elementwise(torch.div),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Gelu": _gelu,
    "Less": _elementwise(torch.lt),
    "LessOrEqual": _elementwise(torch.le),
    "MatMul": _elementwise(torch.matmul),
    "Min": _elementwise(torch.minimum),
    "Mul": _elementwise(torch.mul),
    "RMSNormalization": _rms_norm,
    "ReduceMax": _reduce_max,
    "ReduceLogSumExp": _log_sum_exp,
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
    "Where": _where,
}
