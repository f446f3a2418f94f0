"""plugins, prune: parts cut out of a layer: rows of what makes some channels, columns of what reads them."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgewise.errors import GraphError, OptionError
from edgewise.graph import Linear, Roles, layer, linears, mark, role
from edgewise.quantized import BlockQuantized
from edgewise.tensors import constant, streamed
from edgewise_plugins.absorb import bias, replace
from edgewise_plugins.views import take_rows


def floats(model: ir.Model, *, needed_by: str) -> dict[ir.Node, Linear]:
    """The matrices of a model by their node. Raises GraphError for one that is quantized."""
    found = {linear.node: linear for linear in linears(model)}
    for linear in found.values():
        if isinstance(linear.matrix, BlockQuantized):
            raise GraphError(f"'{linear.name}' is quantized already ({linear.matrix.form}): {needed_by} comes before")
    return found


def check_share(keep: float) -> None:
    """Raises OptionError for what is no share of anything that stays."""
    if not 0 < keep <= 1:
        raise OptionError(f"keep: {keep} is not above 0, and 1 at most")


def check_multiple(multiple: int) -> None:
    """Raises OptionError for what nothing is a multiple of."""
    if multiple < 1:
        raise OptionError(f"multiple: {multiple} is not 1 or more")


def rounded(share: float, size: int, multiple: int) -> int:
    """Units that stay, of `size`: the share of them, rounded up to a multiple."""
    return min(size, -(-round(share * size) // multiple) * multiple)


def keep_rows(roles: Roles, linear: Linear, chosen: np.ndarray) -> None:
    """Keep some of the channels that a matrix gives, and its bias."""
    assert linear.layer is not None
    vector = bias(roles, linear.role, linear.layer)
    linear.replace(take_rows(linear.matrix, chosen))
    if vector is not None:
        replace(vector, take_rows(streamed(vector.const_value), chosen))
        vector.shape = ir.Shape([len(chosen)])


def put(model: ir.Model, linear: Linear, weights: np.ndarray, offset: np.ndarray | None) -> None:
    """Other weights `[outputs, inputs]`, and an offset that is added to what they and a bias give."""
    linear.replace(constant(weights, name=linear.name))
    if offset is None:
        return
    roles = Roles.of(model)
    vector = bias(roles, linear.role, linear.layer or 0)
    if vector is not None and vector.const_value is not None:
        replace(vector, constant(vector.const_value.numpy().astype(np.float32) + offset))
    else:
        _add_bias(model, linear, offset)


def resize(model: ir.Model, index: int, roles: Sequence[str], width: int) -> None:
    """State the new width of the values that nodes of these roles give."""
    for node in model.graph:
        if layer(node) == index and role(node) in roles:
            for value in node.outputs:
                if value.shape is not None:
                    value.shape = ir.Shape([*value.shape[:-1], width])


def integers(model: ir.Model, name: str, numbers: Sequence[int]) -> ir.Value:
    """A constant vector of the graph, in the place of one that has the name already."""
    model.graph.initializers.pop(name, None)
    kind, shape = ir.TensorType(ir.DataType.INT64), ir.Shape([len(numbers)])
    value = ir.Value(name=name, type=kind, shape=shape, const_value=constant(np.array(numbers, np.int64)))
    model.graph.register_initializer(value)
    return value


def drop_unused(graph: ir.Graph) -> None:
    """Remove the initializers that nothing reads any more."""
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
            del graph.initializers[name]


def _add_bias(model: ir.Model, linear: Linear, offset: np.ndarray) -> None:
    name = linear.name.removesuffix(".weight") + ".bias"
    value = ir.Value(
        name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(offset.shape), const_value=constant(offset)
    )
    model.graph.register_initializer(value)
    product = linear.node.outputs[0]
    node = ir.node("Add", [product, value], name=f"{linear.node.name}.biased")
    added = node.outputs[0]
    added.name, added.shape, added.type = f"{product.name}.biased", product.shape, product.type
    for user, position in list(product.uses()):
        if user is not node:
            user.replace_input_with(position, added)
    mark(node, f"{linear.role}.bias", linear.layer)
    linear.node.append(node)
