"""sdk, calibration: what a graph computes, in one hash: its nodes, its facts, and the bytes of its weights."""

from collections.abc import Iterator

import blake3
import numpy as np
import onnx_ir as ir

from edgewise.graph import FACTS
from edgewise.tensors import Cast, Streamed, Transposed, storage, streamed


def fingerprint(model: ir.Model, *more: object) -> str:
    """A hash of the model at this moment, and of whatever else decides a result. Reads every weight once."""
    digest = blake3.blake3()
    for line in (model.metadata_props.get(FACTS, ""), *map(_node, model.graph), *_weights(model), *map(str, more)):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def array_digest(array: np.ndarray) -> str:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return f"{array.dtype.str}{array.shape}{blake3.blake3(content).hexdigest()}"


def _node(node: ir.Node) -> str:
    attributes = sorted(f"{name}={attribute.value}" for name, attribute in node.attributes.items())
    inputs = [value.name if value else None for value in node.inputs]
    return f"{node.domain}.{node.op_type}{inputs}{[value.name for value in node.outputs]}{attributes}"


def _weights(model: ir.Model) -> Iterator[str]:
    known: dict[object, str] = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            yield f"{name} {_content(streamed(value.const_value), known)}"


def _content(tensor: Streamed, known: dict[object, str]) -> str:
    """The hash of a tensor; of a view that is cast or transposed, that of what is stored."""
    if isinstance(tensor, Cast | Transposed):
        return f"{type(tensor).__name__} {tensor.dtype} {_content(tensor.base, known)}"
    if storage(tensor) not in known:
        digest = blake3.blake3(max_threads=blake3.blake3.AUTO)
        for start, stop in tensor.blocks():
            digest.update(np.ascontiguousarray(tensor.read(start, stop)).reshape(-1).view(np.uint8).data)
        known[storage(tensor)] = f"{tensor.dtype} {tensor.dims} {digest.hexdigest()}"
    return known[storage(tensor)]
