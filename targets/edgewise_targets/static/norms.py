"""targets, static: the norm of each query and key head, over three axes.

Over four, `[1, tokens, heads, head_dim]`, QNN computes other values from 16 tokens on (onnxruntime-qnn 2.7.0, in the
emulator, on every chip; with heads before tokens it does not). Over three it is the norm that a layer begins with.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.graph import Roles, get_facts
from edgewise.passes import context_of
from edgewise.tensors import constant
from edgewise_targets.step import Step, initializer


@dataclass(frozen=True)
class HeadNorms(Step):
    """Heads of all tokens one below the other, `[1, tokens * heads, head_dim]`, while they are normalized."""

    name: ClassVar[str] = "static-head-norms"

    def rewrite(self, model: ir.Model) -> bool:
        roles, modified = Roles.of(model), False
        width = context_of(model).width
        assert width is not None  # FixedTables has seen it
        for index, spec in enumerate(get_facts(model).attention):
            for part, heads in (("q", spec.heads), ("k", spec.kv_heads)) if spec.qk_norm == "head" else ():
                nodes = roles.all(f"attention.{part}.norm", index)
                if len(nodes) == 2:  # a split into heads, and the norm
                    _flatten(model.graph, *nodes, shape=(width, heads, spec.head_dim))
                    modified = True
        return modified


def _flatten(graph: ir.Graph, split: ir.Node, norm: ir.Node, *, shape: tuple[int, int, int]) -> None:
    tokens, heads, dim = shape
    split.replace_input_with(1, _shape(graph, 1, tokens * heads, dim))
    (normed,) = norm.outputs
    back = ir.node("Reshape", [normed, _shape(graph, 1, *shape)], name=f"{norm.name}.heads")
    back.metadata_props.update(norm.metadata_props)
    back.outputs[0].name = f"{norm.name}.heads"
    normed.replace_all_uses_with(back.outputs[0])
    back.replace_input_with(0, normed)
    norm.append(back)


def _shape(graph: ir.Graph, *sizes: int) -> ir.Value:
    name = f"integers.{'_'.join(map(str, sizes))}"
    return initializer(graph, constant(np.array(sizes, np.int64)), name)
