"""targets, ort: RMS norms (arXiv 1910.07467): fused with the residual addition before them, per head, or plain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import Roles, get_facts
from edgewise.passes import context_of
from edgewise_targets.ort.integer import is_scaled_product
from edgewise_targets.step import CONTRIB, Step, become

GATED_ADD = f"{CONTRIB}:GatedAdd"


@dataclass(frozen=True)
class FuseHeadNorms(Step):
    """The norm of each query and key head as one BranchwiseRMSNorm on the projection as it is."""

    name: ClassVar[str] = "ort-head-norms"

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        for index, spec in enumerate(get_facts(model).attention):
            if spec.qk_norm != "head":
                continue
            for part, heads in (("q", spec.heads), ("k", spec.kv_heads)):
                nodes = roles.all(f"attention.{part}.norm", index)
                if len(nodes) > 1:
                    _join(nodes, heads)
                    modified = True
        return modified


@dataclass(frozen=True)
class FuseSkipNorms(Step):
    """A residual addition and the norm that follows it as one SkipSimplifiedLayerNormalization.

    What an integer product adds is scaled for each token, and GatedAdd does that while adding: with a norm of its own
    it takes half the time.
    """

    name: ClassVar[str] = "ort-skip-norms"

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        target = context_of(model).target
        gated = target is None or GATED_ADD not in target.needs.denied
        last = get_facts(model).layers - 1
        for index in range(last + 1):
            after = roles.maybe("norm") if index == last else roles.maybe("attention.norm", index + 1)
            cross, mlp = roles.maybe("cross.norm", index), roles.maybe("mlp.norm", index)
            pairs = {"attention.residual": cross or mlp, "cross.residual": mlp, "mlp.residual": after}
            for residual, norm in pairs.items():
                add = roles.maybe(residual, index)
                modified |= (gated and _scale_while_adding(add)) or _fuse(add, norm)
        return modified


@dataclass(frozen=True)
class PlainNorms(Step):
    """Every other norm as a SimplifiedLayerNormalization, which all providers of ONNX Runtime have."""

    name: ClassVar[str] = "ort-norms"
    removes: ClassVar[frozenset[str]] = frozenset({"RMSNormalization"})

    def rewrite(self, model: ir.Model) -> bool:
        norms = [node for node in model.graph if node.op_type == "RMSNormalization"]
        for node in norms:
            attributes = {"axis": -1, "epsilon": epsilon(node)}
            become(node, "SimplifiedLayerNormalization", node.inputs, attributes, domain="")
        return bool(norms)


def epsilon(norm: ir.Node) -> float:
    return norm.attributes.get_float("epsilon", 1e-5)


def _join(nodes: Sequence[ir.Node], heads: int) -> None:
    """Make one operator of a norm between the split into heads and their return."""
    split, joined = nodes[0], nodes[-1]
    norm = next(node for node in nodes if node.op_type == "RMSNormalization")
    attributes = {"num_branches": heads, "epsilon": epsilon(norm)}
    become(joined, "BranchwiseRMSNorm", [split.inputs[0], norm.inputs[1]], attributes)


def _fuse(add: ir.Node | None, norm: ir.Node | None) -> bool:
    """Join an addition and the norm that reads its sum; the sum is the fourth output, under its name."""
    if add is None or norm is None or add.op_type != "Add" or norm.inputs[0] is not add.outputs[0]:
        return False
    total = add.outputs[0]
    become(norm, "SkipSimplifiedLayerNormalization", [*add.inputs, norm.inputs[1]], {"epsilon": epsilon(norm)})
    norm.resize_outputs(4)
    _, mean, deviation, fused = norm.outputs
    mean.name = deviation.name = ""
    total.replace_all_uses_with(fused)
    fused.name = total.name
    return True


def _scale_while_adding(add: ir.Node | None) -> bool:
    """Join an addition and the scale of each token of what is added."""
    if add is None or add.op_type != "Add":
        return False
    for value, other in (add.inputs, reversed(add.inputs)):
        product = value.producer() if value else None
        if product is not None and is_scaled_product(product):
            become(add, "GatedAdd", [other, *product.inputs])
            return True
    return False
