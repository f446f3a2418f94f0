"""targets, ort: floats of 16 bits, which GPUs compute with: weights, activations, keys and values.

The logits come out in float32, and so do hidden states: a runner reads the same types of every bundle.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.facts import Attention
from edgewise.graph import get_facts, set_facts
from edgewise.tensors import Cast, streamed
from edgewise_targets.step import Step

Floats = Literal["float32", "float16", "bfloat16"]

DTYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
LARGEST = float(np.finfo(np.float16).max)
CACHE = ("past_key_values.", "present.")
SCALES = (12, 13)  # of a cache in int8, inputs of GroupQueryAttention: float32 whatever the rest is


@dataclass(frozen=True)
class NarrowFloats(Step):
    """In float16 or bfloat16 what was in float32; weights are converted as they are written."""

    name: ClassVar[str] = "ort-floats"

    floats: Floats = "float32"

    def rewrite(self, model: ir.Model) -> bool:
        graph = model.graph
        constants = [value for value in graph.initializers.values() if _is_float32(value) and not _is_scale(value)]
        if self.floats == "float32" or not constants:
            return False
        _refuse_integers(graph)
        dtype = DTYPES[self.floats]
        for value in constants:
            value.const_value, value.type = Narrowed(streamed(value.const_value), dtype), ir.TensorType(dtype)
        for node in graph:
            if node.op_type == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.FLOAT:
                node.attributes.add(ir.AttrInt64("to", int(dtype)))
            if node.op_type == "ConstantOfShape":
                _narrow_filling(node, dtype)
        for value in filter(_is_float32, (*graph.inputs, *graph.outputs)):
            if str(value.name).startswith(CACHE):
                value.type = ir.TensorType(dtype)  # a new one: clones of a graph share theirs
            else:
                _widen(graph, value, self.floats)
        _state_cache(model, self.floats)
        return True


class Narrowed(Cast):
    """A tensor in a narrower float type. What does not fit in it is a LoweringError when it is read."""

    def convert(self, rows: np.ndarray) -> np.ndarray:
        if self.dtype == ir.DataType.FLOAT16 and rows.size:
            largest = max(float(rows.max()), -float(rows.min()))
            if largest > LARGEST:
                raise LoweringError(
                    f"'{self.name}' holds {largest:.3g}, and float16 ends at {LARGEST:.0f}; "
                    "lower with floats = 'bfloat16'"
                )
        return super().convert(rows)


def _narrow_filling(node: ir.Node, dtype: ir.DataType) -> None:
    """Fill with floats of another type, which are zeros where nothing is said."""
    filling = node.attributes.get_tensor("value")
    number = np.zeros(1, np.float32) if filling is None else filling.numpy()
    if number.dtype == np.float32:
        node.attributes.add(ir.AttrTensor("value", ir.tensor(number.astype(dtype.numpy()), dtype=dtype)))


def _is_float32(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT


def _is_scale(value: ir.Value) -> bool:
    """Whether all that reads a constant is a cache in int8."""
    uses = value.uses()
    return bool(uses) and all(use.node.op_type == "GroupQueryAttention" and use.idx in SCALES for use in uses)


def _refuse_integers(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type == "MatMulIntegerToFloat":
            raise LoweringError(f"'{node.name}' multiplies int8 activations, which needs floats = 'float32'")


def _widen(graph: ir.Graph, value: ir.Value, floats: Floats) -> None:
    """Give an output of the graph in float32 that is computed in fewer bits."""
    name, producer = str(value.name), value.producer()
    assert producer is not None
    value.name = f"{name}.{floats}"
    cast = ir.node("Cast", [value], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{name}.float32")
    (wide,) = cast.outputs
    wide.name, wide.type, wide.shape = name, ir.TensorType(ir.DataType.FLOAT), value.shape
    value.type = ir.TensorType(DTYPES[floats])
    producer.append(cast)
    graph.outputs[list(graph.outputs).index(value)] = wide


def _state_cache(model: ir.Model, floats: Floats) -> None:
    def kept(spec: Attention) -> Attention:
        return dataclasses.replace(spec, cache=floats) if spec.cache == "float32" else spec

    facts = get_facts(model)
    set_facts(model, dataclasses.replace(facts, attention=tuple(map(kept, facts.attention))))
