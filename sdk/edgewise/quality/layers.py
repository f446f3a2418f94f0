"""sdk, quality: which layers a recipe hurts most: the KL divergence where one layer alone is as the recipe left it."""

import numpy as np
import onnx_ir as ir

from edgewise.graph import layer, role
from edgewise.quality.sensitivity import AFTER_LAYERS, sensitivity
from edgewise.quantized import BlockQuantized
from edgewise.tensors import Streamed, Transposed, streamed
from edgewise.writer import Progress


def layer_costs(
    floats: ir.Model,
    reduced: ir.Model,
    sequences: np.ndarray,
    *,
    context: int | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """The mean KL divergence that each layer costs alone, the largest first; a few hundred tokens will do.

    `reduced` is what a recipe made of `floats`: other weights, which the same nodes read; a node that reads a weight
    of its own is a GraphError.
    """
    found = sensitivity(floats, changes_by_layer(floats, reduced), sequences, context=context, progress=progress)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def changes_by_layer(floats: ir.Model, reduced: ir.Model) -> dict[str, dict[str, Streamed]]:
    """The weights that differ, by the layer that reads them first: "embedding", "layer 0", ..., "lm_head"."""
    changes: dict[str, dict[str, Streamed]] = {}
    placed: set[str] = set()
    before = floats.graph.initializers
    for node in reduced.graph:
        for value in node.inputs:
            name = str(value.name) if value is not None else ""
            if value is None or not value.is_initializer() or name in placed:
                continue
            placed.add(name)
            if name not in before or before[name].const_value is not value.const_value:
                changes.setdefault(_place(node), {})[name] = streamed(value.const_value)
    return changes


def is_quantized(model: ir.Model) -> bool:
    """Whether any weight is in blocks of few bits."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return any(isinstance(t.base if isinstance(t, Transposed) else t, BlockQuantized) for t in tensors)


def _place(node: ir.Node) -> str:
    number = layer(node)
    if number is not None:
        return f"layer {number}"
    return "lm_head" if role(node) in AFTER_LAYERS else "embedding"
