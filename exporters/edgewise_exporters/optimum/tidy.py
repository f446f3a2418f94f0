"""exporters, optimum: a graph of torch's exporter with what ours have: the checkpoint's names, layers and roles.

Products with a bias (`Gemm`) become `MatMul` and `Add`, the operators that passes work on. A node of torch's exporter
is named by the module that it belongs to: `/encoder/layer.0/attention/self/query/MatMul`.
"""

import re

import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import mark
from edgewise.tensors import Streamed, streamed, transpose
from edgewise_exporters.optimum.roles import role_of
from edgewise_exporters.optimum.weights import Weights

LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
UNNAMED = "onnx::"  # what torch's exporter calls a tensor that it has computed itself
TURNED = ".turned"
VIEWS = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
WEIGHTS = {"MatMul": 1, "Gather": 0}  # which input


def tidy(model: ir.Model, weights: Weights) -> None:
    """Give weights the checkpoint's names and views, products their roles."""
    outputs = set(model.graph.outputs)
    for node in list(model.graph):
        if node.op_type == "Identity" and _is_constant(node.inputs[0]) and node.outputs[0] not in outputs:
            _elide(model.graph, node)
    for node in list(model.graph):
        if node.op_type == "Gemm":
            _split(model.graph, node)
    _name_weights(model.graph, weights)
    tokens = {value for value in model.graph.inputs if value.name in ("input_ids", "decoder_input_ids")}
    for node in model.graph:
        weight = _matrix(node)
        if weight is not None and node.op_type == "MatMul":
            path = str(weight.name).removesuffix(".weight")
            layer = layer_of(path)
            mark(node, role_of(path, layer), layer)
        elif weight is not None and _origin(node.inputs[1]) in tokens:
            mark(node, "embedding")


def module(node: ir.Node) -> str:
    """The path of the module that a node belongs to: `encoder.layer.0.attention.self.query`."""
    return ".".join(str(node.name or "").strip("/").split("/")[:-1])


def layer_of(path: str) -> int | None:
    found = LAYER.search(path)
    return int(found[1]) if found else None


def _origin(value: ir.Value | None) -> ir.Value | None:
    """What a value is another shape or type of."""
    while value is not None and (made := value.producer()) and made.op_type in VIEWS:
        value = made.inputs[0]
    return value


def _matrix(node: ir.Node) -> ir.Value | None:
    """The constant matrix that a node multiplies by, or takes rows of."""
    value = node.inputs[WEIGHTS[node.op_type]] if node.op_type in WEIGHTS else None
    if value is None or not value.is_initializer() or value.shape is None or len(value.shape) != 2:
        return None
    return value


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()


def _elide(graph: ir.Graph, node: ir.Node) -> None:
    """What torch's exporter puts where two weights are equal: its readers read the one that is there."""
    assert node.inputs[0] is not None
    node.outputs[0].replace_all_uses_with(node.inputs[0])
    graph.remove(node, safe=True)


def _split(graph: ir.Graph, node: ir.Node) -> None:
    """A product with a bias as two nodes, its weight `[in, out]`."""
    get = {key: attribute.value for key, attribute in node.attributes.items()}
    if get.get("alpha", 1.0) != 1.0 or get.get("beta", 1.0) != 1.0 or get.get("transA", 0):
        raise GraphError(f"{node.name}: a Gemm with a scale or a turned input is not understood")
    x, weight, *bias = node.inputs
    assert x is not None
    assert weight is not None
    if not weight.is_initializer():
        raise GraphError(f"{node.name}: a Gemm of two computed matrices is not understood")
    if get.get("transB", 0):
        weight = _turned(graph, weight)
    out = node.outputs[0]
    product = ir.node("MatMul", [x, weight], name=str(node.name).replace("Gemm", "MatMul"))
    nodes = [product]
    if bias:
        nodes.append(ir.node("Add", [product.outputs[0], bias[0]], name=str(node.name).replace("Gemm", "Add")))
    for made in nodes:
        made.outputs[0].shape, made.outputs[0].type = out.shape, out.type
    product.outputs[0].name = f"{out.name}.product" if bias else out.name
    nodes[-1].outputs[0].name = out.name
    graph.insert_before(node, nodes)
    ir.convenience.replace_all_uses_with(out, nodes[-1].outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _turned(graph: ir.Graph, weight: ir.Value) -> ir.Value:
    """The transposed matrix as an initializer of its own; the other one goes where nobody else reads it."""
    name = f"{weight.name}{TURNED}"
    if name not in graph.initializers:
        _register(graph, name, transpose(streamed(weight.const_value)))
    return graph.initializers[name]


def _register(graph: ir.Graph, name: str, tensor: Streamed) -> ir.Value:
    tensor.name = name
    shape = ir.Shape(tensor.dims)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def _name_weights(graph: ir.Graph, weights: Weights) -> None:
    """Views of the checkpoint, under its names, in place of what was exported; equal ones are one."""
    views: dict[object, ir.Value] = {}
    for value in sorted(graph.initializers.values(), key=lambda each: str(each.name).startswith(UNNAMED)):
        uses = list(value.uses())
        if not uses:
            del graph.initializers[str(value.name)]
            continue
        unnamed = str(value.name).startswith(UNNAMED)
        path = f"{module(uses[0].node)}.weight" if unnamed else str(value.name).removesuffix(TURNED)
        found = weights.find(streamed(value.const_value), path)
        name, tensor = found or (path, None)
        if tensor is not None:
            if same := views.get(tensor.storage):
                value.replace_all_uses_with(same)
                del graph.initializers[str(value.name)]
                continue
            views[tensor.storage] = value
            value.const_value = tensor
        _rename(graph, value, (name, path))


def _rename(graph: ir.Graph, value: ir.Value, names: tuple[str, ...]) -> None:
    """The first of the names that nothing else has; else it keeps its own."""
    for name in names:
        if name == value.name or name not in graph.initializers:
            value.name = name
            break
    if value.const_value is not None:
        value.const_value.name = value.name
