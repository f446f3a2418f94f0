"""plugins: what comes before some matrix products, and can take over the inverse of a scale on their inputs.

Multiplying the columns of a weight by s and dividing its input by s changes nothing. The division is folded

    attention.norm, mlp.norm    into the norm's gains, for all the products that read it
    mlp.up -> mlp.down          into the rows of up, and its bias
    attention.v -> attention.o  into the rows of v, and its bias; query heads that share a value head share a scale

A pair is left out where something stands between that a scale does not pass through, or that reads the input too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import Linear, Roles, get_facts, linears
from edgewise.quantized import BlockQuantized
from edgewise.tensors import Streamed, streamed
from edgewise_plugins.views import scale_columns, scale_rows

ROWS = 512


@dataclass(frozen=True)
class Pair:
    """Matrices that share an input, and the tensors that make it: a norm's gains, or a matrix and its bias.

    heads: of value channels `[kv_heads, head_dim]`, how many query heads read each; 1 where nothing is shared.
    """

    readers: tuple[Linear, ...]
    makers: tuple["Linear | ir.Value", ...]
    kv_heads: int = 1
    shared_by: int = 1

    def shared(self, scores: np.ndarray) -> np.ndarray:
        """Scores of the input's channels, the largest of those that must have one scale: `[channels / shared_by]`."""
        return np.asarray(scores.reshape(self.kv_heads, self.shared_by, -1).max(axis=1).reshape(-1))

    def spread(self, scales: np.ndarray) -> np.ndarray:
        """A scale for each channel of the input, from those of `shared`."""
        by_head = scales.reshape(self.kv_heads, 1, -1)
        return np.asarray(np.repeat(by_head, self.shared_by, axis=1).reshape(-1))

    def fold(self, scales: np.ndarray) -> None:
        """Multiply the readers' columns by scales, as `shared` gives them, and divide what makes their input."""
        columns, rows = self.spread(scales).astype(np.float32), (1 / scales).astype(np.float32)
        for linear in self.readers:
            _put(linear, scale_columns(linear.matrix, columns))
        for maker in self.makers:
            if isinstance(maker, Linear):
                _put(maker, scale_rows(maker.matrix, rows))
            else:
                replace(maker, scale_rows(streamed(maker.const_value), rows))


def _put(linear: Linear, matrix: Streamed) -> None:
    """Scaling keeps zeros."""
    zeros = linear.zeros
    linear.replace(matrix)
    linear.state_zeros(zeros)


def replace(value: ir.Value, tensor: Streamed) -> None:
    """Another content of an initializer."""
    tensor.name = value.name
    value.const_value = tensor


def pairs(model: ir.Model) -> dict[int, list[Pair]]:
    """By layer, in the order of computation. Raises GraphError for matrices that are quantized already."""
    roles, by_node = Roles.of(model), {linear.node: linear for linear in linears(model)}
    for linear in by_node.values():
        if isinstance(linear.matrix, BlockQuantized):
            raise GraphError(
                f"'{linear.name}' is quantized already ({linear.matrix.form}): scale before quantizing, "
                "and a checkpoint that comes quantized not at all"
            )
    return {
        layer: [pair for pair in _of_layer(model, layer, roles, by_node) if pair.readers] for layer in roles.layers()
    }


def _of_layer(model: ir.Model, layer: int, roles: Roles, by_node: dict[ir.Node, Linear]) -> Iterator[Pair]:
    a = get_facts(model).attention[layer]
    for role in ("attention.norm", "mlp.norm"):
        if node := roles.maybe(role, layer):
            yield Pair(readers(node.outputs[0], by_node), (only_gain(node),))
    value, output = roles.maybe("attention.v", layer), roles.maybe("attention", layer)
    if value in by_node and output is not None and output.inputs[2] is _biased(roles, "attention.v", layer):
        makers = _makers(roles, by_node, "attention.v", layer)
        yield Pair(readers(output.outputs[0], by_node), makers, a.kv_heads, a.heads // a.kv_heads)
    up, product = roles.maybe("mlp.up", layer), roles.maybe("mlp.product", layer)
    if up in by_node and product is not None and _biased(roles, "mlp.up", layer) in product.inputs:
        yield Pair(readers(product.outputs[0], by_node), _makers(roles, by_node, "mlp.up", layer))


def readers(value: ir.Value, by_node: dict[ir.Node, Linear]) -> tuple[Linear, ...]:
    """The matrices that multiply a value; none where anything else reads it too."""
    nodes = list(value.consumers())
    if value.is_graph_output() or any(node not in by_node or node.inputs[0] is not value for node in nodes):
        return ()
    return tuple(by_node[node] for node in nodes)


def only_gain(norm: ir.Node) -> ir.Value:
    """The gains of a norm, which no other norm has."""
    gain = norm.inputs[1]
    if gain is None or gain.const_value is None or len(gain.uses()) != 1:
        raise GraphError(f"norm '{norm.name}' has no gains of its own")
    return gain


def bias(roles: Roles, role: str, layer: int) -> ir.Value | None:
    """The bias of a projection."""
    add, node = roles.maybe(f"{role}.bias", layer), roles.one(role, layer)
    if add is None:
        return None
    return next(value for value in add.inputs if value is not node.outputs[0])


def _biased(roles: Roles, role: str, layer: int) -> ir.Value:
    """What leaves a projection, after its bias."""
    return (roles.maybe(f"{role}.bias", layer) or roles.one(role, layer)).outputs[0]


def _makers(roles: Roles, by_node: dict[ir.Node, Linear], role: str, layer: int) -> tuple[Linear | ir.Value, ...]:
    vector = bias(roles, role, layer)
    linear = by_node[roles.one(role, layer)]
    return (linear,) if vector is None else (linear, vector)


def column_maxima(matrices: Sequence[Streamed]) -> np.ndarray:
    """The largest |weight| of each input column, over all rows of all matrices: float32 `[in]`."""
    largest = np.zeros(matrices[0].dims[1], np.float32)
    for matrix in matrices:
        for start, stop in matrix.blocks():
            np.maximum(largest, np.abs(matrix.read(start, stop)).max(axis=0), out=largest)
    return largest


def some_rows(matrix: Streamed) -> np.ndarray:
    """Rows of a matrix, evenly spaced, float32: enough to tell scales apart."""
    rows = np.unique(np.linspace(0, matrix.dims[0] - 1, ROWS).astype(np.int64))
    parts = []
    for start, stop in matrix.blocks():
        chosen = rows[(rows >= start) & (rows < stop)]
        if len(chosen):
            parts.append(matrix.read(start, stop)[chosen - start])
    return np.concatenate(parts).astype(np.float32, copy=False)
