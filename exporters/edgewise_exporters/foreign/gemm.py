"""exporters, foreign: Gemm, the product with its bias in one operator, taken apart."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.passes import Pass
from edgewise.tensors import streamed, transpose


@dataclass(frozen=True)
class SplitGemm(Pass):
    """Gemm with a constant matrix as a MatMul and an Add."""

    name: ClassVar[str] = "foreign-split-gemm"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = [node for node in model.graph if _is_plain_gemm(node)]
        for node in found:
            _split(model.graph, node)
        return ir.passes.PassResult(model, bool(found))


def _is_plain_gemm(node: ir.Node) -> bool:
    factors = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    weight = node.inputs[1] if node.op_type == "Gemm" else None
    turned = node.attributes.get_int("transA", 0)
    return weight is not None and weight.is_initializer() and factors == (1.0, 1.0) and not turned


def _split(graph: ir.Graph, node: ir.Node) -> None:
    x, weight, *rest = node.inputs
    assert weight is not None
    if node.attributes.get_int("transB", 0):
        weight = _turned(graph, node, weight)
    bias = rest[0] if rest else None
    product = ir.node("MatMul", [x, weight], name=f"{node.name}/product")
    value, old = product.outputs[0], node.outputs[0]
    node.prepend(product)
    if bias is not None:
        value.name = f"{old.name}/product"
        added = ir.node("Add", [value, bias], name=f"{node.name}/biased")
        node.prepend(added)
        value = added.outputs[0]
    name = old.name
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    value.name = name


def _turned(graph: ir.Graph, node: ir.Node, weight: ir.Value) -> ir.Value:
    """A matrix `[out, in]` the other way round: as a view, or by an operator where others read it too."""
    if len(weight.uses()) == 1:
        tensor = transpose(streamed(weight.const_value))
        weight.const_value, weight.shape = tensor, ir.Shape(tensor.dims)
        return weight
    turned = ir.node("Transpose", [weight], attributes={"perm": (1, 0)}, name=f"{node.name}/turned")
    turned.outputs[0].name = f"{weight.name}/turned"
    node.prepend(turned)
    return turned.outputs[0]
