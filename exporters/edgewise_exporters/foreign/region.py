"""exporters, foreign: a part of a graph that is run alone, on random numbers: how a pattern is proven to be one.

A region is all that its outputs are computed by, up to values that are given, the graph's inputs, and activations of
which only the sizes are read. Weights are no part of it: what needs a product with a constant matrix is no region.
"""

import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgewise.graph import role
from edgewise.runtime.library import first_line
from edgewise.runtime.ort import open_graph
from edgewise.tensors import streamed
from edgewise_exporters.foreign.flow import above, is_linear, measures

logger = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Region:
    """Nodes in order, what they are given, and of which activations they read the sizes only."""

    model: ir.Model
    outputs: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    measured: tuple[ir.Value, ...]

    @classmethod
    def of(cls, model: ir.Model, outputs: Sequence[ir.Value], given: Collection[ir.Value]) -> "Region | None":
        """None where it would need a product with a weight, or an activation that is not given."""
        found, inputs, measured = set[ir.Node](), dict[ir.Value, None](), dict[ir.Value, None]()
        queue = list(outputs)
        while queue:
            value = queue.pop()
            node = value.producer()
            if value in given or value.is_graph_input():
                inputs[value] = None
            elif node is None or node in found:
                continue
            elif _is_weighted(node):
                return None
            else:
                found.add(node)
                for taken in filter(None, node.inputs):
                    outside = measures(node) and taken not in given and _needs_weights(taken, given)
                    if outside:
                        measured[taken] = None
                    else:
                        queue.append(taken)
        return cls(model, tuple(outputs), tuple(n for n in model.graph if n in found), tuple(inputs), tuple(measured))

    def run(self, feeds: Arrays) -> list[np.ndarray] | None:
        """The outputs; `feeds` are arrays by the names of values. None where they do not fit."""
        values = (*self.inputs, *self.measured)
        proto = _proto(self.model, self.nodes, values, self.outputs)
        return run(proto, {str(value.name): feeds[str(value.name)] for value in values})


def run(proto: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray] | None:
    """What a small graph computes; None where it cannot compute this."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "region.onnx"
        path.write_bytes(proto.SerializeToString())
        try:
            session = open_graph(path, threads=1)
            known = {value.name for value in session.get_inputs()}
            results: list[np.ndarray] = session.run(None, {name: feeds[name] for name in feeds if name in known})
        except Exception as error:  # whatever ONNX Runtime raises: the pattern is another one
            logger.debug("not proven: %s", first_line(error))
            return None
        return results


def _is_weighted(node: ir.Node) -> bool:
    return is_linear(node) or role(node) == "embedding"


def _needs_weights(value: ir.Value, given: Collection[ir.Value]) -> bool:
    """Whether an activation lies behind a product that is not given."""
    makers = {node for each in given if (node := each.producer())}
    found = above([value], stop=lambda node: node in makers or _is_weighted(node) or measures(node))
    return any(map(_is_weighted, found - makers))


def _proto(
    model: ir.Model, nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]
) -> onnx.ModelProto:
    constants = {value for node in nodes for value in node.inputs if value is not None and value.is_initializer()}
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(node) for node in nodes],
        "region",
        [_any_shape(value) for value in inputs],
        [onnx.helper.make_empty_tensor_value_info(str(value.name)) for value in outputs],
        initializer=[_constant(value) for value in sorted(constants, key=lambda value: str(value.name))],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)


def _any_shape(value: ir.Value) -> onnx.ValueInfoProto:
    dtype = ir.DataType.FLOAT if value.dtype is None else value.dtype
    return onnx.helper.make_tensor_value_info(str(value.name), int(dtype), None)


def _constant(value: ir.Value) -> onnx.TensorProto:
    tensor = streamed(value.const_value)
    array = tensor.read(0, tensor.dims[0] if tensor.dims else 1).reshape(tensor.dims)
    return onnx.numpy_helper.from_array(array, str(value.name))
