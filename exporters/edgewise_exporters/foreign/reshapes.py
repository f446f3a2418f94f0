"""exporters, foreign: what changes no number: a Reshape to the shape that is there, and rows laid out for a product."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.passes import Pass
from edgewise.tensors import streamed
from edgewise_exporters.foreign.cases import CASES, Case, feeds
from edgewise_exporters.foreign.flow import is_constant, is_linear
from edgewise_exporters.foreign.region import Region
from edgewise_exporters.foreign.widths import BY_NUMBER, columns, width


@dataclass(frozen=True)
class DropCasts(Pass):
    """No Cast of float32 to float32 behind a table, a norm or a product."""

    name: ClassVar[str] = "foreign-drop-casts"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = [node for node in model.graph if node.op_type == "Cast" and _keeps_floats(node)]
        for node in found:
            _bypass(model, node)
        return ir.passes.PassResult(model, bool(found))


def _keeps_floats(node: ir.Node) -> bool:
    value = node.inputs[0]
    if node.attributes.get_int("to", 0) != int(ir.DataType.FLOAT) or value is None:
        return False
    return _is_float(value)


def _is_float(value: ir.Value) -> bool:
    """Whether an activation is made of float32 numbers."""
    if value.const_value is not None:
        return value.const_value.dtype == ir.DataType.FLOAT
    node = value.producer()
    if node is None:
        return value.dtype == ir.DataType.FLOAT
    if node.op_type == "Gather":
        return node.inputs[0] is not None and _is_float(node.inputs[0])
    if node.op_type in ("Add", "Div", "LayerNormalization", "MatMul", "Mul", "Sub"):
        return any(each is not None and _is_float(each) for each in node.inputs)
    return node.op_type == "Cast" and node.attributes.get_int("to", 0) == int(ir.DataType.FLOAT)


@dataclass(frozen=True)
class DropReshapes(Pass):
    """No Reshape that gives what it is given, as runs of several sizes show."""

    name: ClassVar[str] = "foreign-drop-reshapes"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = [node for node in model.graph if node.op_type == "Reshape" and _changes_nothing(model, node)]
        for node in found:
            _bypass(model, node)
        return ir.passes.PassResult(model, bool(found))


def _changes_nothing(model: ir.Model, node: ir.Node) -> bool:
    x = node.inputs[0]
    if x is None or not (x.is_graph_input() or width(x)):
        return False
    region = Region.of(model, node.outputs, [x])
    return region is not None and all(_gives_back(region, x, case) for case in CASES)


def _gives_back(region: Region, x: ir.Value, case: Case) -> bool:
    arrays = feeds(case, (x, *region.inputs, *region.measured))
    found = region.run(arrays) if arrays else None
    return bool(arrays and found and np.array_equal(found[0], arrays[str(x.name)]))


@dataclass(frozen=True)
class KeepTokens(Pass):
    """What goes token by token does so on `[batch, sequence, width]`, where tokens were laid out in rows, and back.

    Both layouts are proven by runs of several sizes, without the weights of what lies between.
    """

    name: ClassVar[str] = "foreign-keep-tokens"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in [node for node in model.graph if node.op_type == "Reshape"]:
            modified |= _unfold(model, node)
        return ir.passes.PassResult(model, modified)


def _unfold(model: ir.Model, rows: ir.Node) -> bool:
    x = rows.inputs[0]
    if x is None or x.is_graph_input() or not width(x) or not (backs := _until_back(rows)):
        return False
    for back in backs:
        given = back.inputs[0]
        assert given is not None
        region = Region.of(model, [rows.outputs[0], back.outputs[0]], [x, given])
        size = columns_of(given)
        if region is None or size is None or not all(_lays_out(region, x, given, size, case) for case in CASES):
            return False
    for node in (rows, *backs):
        _bypass(model, node)
    return True


def _until_back(rows: ir.Node) -> list[ir.Node]:
    """The operators that lay rows out as tokens again; none where what lies between does not go row by row."""
    backs: list[ir.Node] = []
    inside: set[ir.Value] = set(rows.outputs)
    queue = [(user, value) for value in rows.outputs for user in value.consumers()]
    seen: set[ir.Node] = set()
    while queue:
        node, _ = queue.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op_type == "Reshape":
            backs.append(node)
        elif is_linear(node) or node.op_type in BY_NUMBER:
            inside.update(node.outputs)
            queue += [(user, value) for value in node.outputs for user in value.consumers()]
        else:
            return []
    taken = [value for node in seen if node not in backs for value in node.inputs if value is not None]
    return backs if all(value in inside or _is_vector(value) or is_constant(value) for value in taken) else []


def _is_vector(value: ir.Value) -> bool:
    return value.const_value is not None and len(streamed(value.const_value).dims) <= 1


def columns_of(value: ir.Value) -> int | None:
    """The width of rows, by the products, norms and residuals that give them."""
    node = value.producer()
    if node is None or node.op_type == "Reshape":
        return width(node.inputs[0]) if node is not None and node.inputs[0] is not None else None
    if is_linear(node):
        return columns(node)
    found = [columns_of(each) for each in node.inputs if each is not None and not each.is_initializer()]
    return next((size for size in found if size is not None), None)


def _lays_out(region: Region, x: ir.Value, given: ir.Value, size: int, case: Case) -> bool:
    """Whether `x` becomes rows of tokens, and rows of tokens become `[batch, sequence, size]`."""
    arrays = feeds(case, [value for value in (x, *region.inputs, *region.measured) if value is not given])
    tokens = case.rows * case.new
    result = np.arange(tokens * size, dtype=np.float32).reshape(tokens, size)
    found = region.run({**arrays, str(given.name): result}) if arrays else None
    if not arrays or not found:
        return False
    rows, back = found
    entering = arrays[str(x.name)].reshape(tokens, -1)
    return np.array_equal(rows, entering) and np.array_equal(back, result.reshape(case.rows, case.new, size))


def _bypass(model: ir.Model, node: ir.Node) -> None:
    """Let what a node gives be what it is given."""
    old, value = node.outputs[0], node.inputs[0]
    assert value is not None
    if old.is_graph_output():
        return
    ir.convenience.replace_all_uses_with(old, value)
    model.graph.remove(node, safe=True)
