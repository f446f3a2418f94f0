"""exporters, optimum: an exported file as a model whose weights stay on disk, in opset 23."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import IR_VERSION, OPSET
from edgewise.safetensors import File
from edgewise.tensors import Streamed
from edgewise_exporters.optimum.workplace import Workplace

CHANGED = {"GroupNormalization"}  # between opsets 18 and 23, in what it computes from the same inputs


def load(place: Workplace, name: str) -> ir.Model:
    """The graph of that file; its weights are views of files that are gone when the last view is.

    Raises GraphError for an operator that opset 23 computes in another way.
    """
    path = place.output / name
    model = ir.load(path)
    files: dict[str, File] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _view(value.const_value, files, place)
        for node in graph:
            for key, attribute in node.attributes.items():
                if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    node.attributes[key] = ir.AttrTensor(key, ir.tensor(attribute.value.numpy().copy()))
    _raise_opset(model, name)
    return model


def _view(tensor: ir.ExternalTensor, files: dict[str, File], place: Workplace) -> Streamed:
    """Rows of a tensor that lies in a data file beside the graph."""
    location = Path(tensor.location).name
    if location not in files:
        files[location] = File(place.output / location)
    file, offset = files[location], tensor.offset or 0
    dims, dtype = tensor.shape.numpy(), tensor.dtype.numpy()

    def read(start: int, stop: int, _kept: Workplace = place) -> np.ndarray:  # its files, for as long as they are read
        rows = np.empty((stop - start, *dims[1:]), dtype)
        file.read(offset + start * (rows.nbytes // max(1, len(rows))), rows.reshape(-1).view(np.uint8).data)
        return rows

    return Streamed(dims, tensor.dtype, read, name=tensor.name)


def _raise_opset(model: ir.Model, name: str) -> None:
    """The opset of the canonical graph, where each operator computes there what it computed."""
    exported = model.opset_imports[""]
    for node in (node for graph in model.graphs() for node in graph):
        if node.domain not in ("", "ai.onnx") or not _computes_the_same(node.op_type, exported):
            kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            raise GraphError(f"{name}: the operator {kind} of opset {exported} has no equal in opset {OPSET}")
    model.opset_imports[""] = OPSET
    model.ir_version = IR_VERSION
    for graph in model.graphs():
        for node in graph:
            node.version = None


def _computes_the_same(operator: str, opset: int) -> bool:
    """Whether an operator takes the same inputs and attributes, with the same defaults, in both opsets."""
    old, new = onnx.defs.get_schema(operator, opset), onnx.defs.get_schema(operator, OPSET)
    if old.since_version == new.since_version:
        return True
    inputs = [each.name for each in old.inputs]
    attributes = {key: (each.type, each.default_value, each.required) for key, each in old.attributes.items()}
    later = {key: (each.type, each.default_value, each.required) for key, each in new.attributes.items()}
    return (
        operator not in CHANGED
        and inputs == [each.name for each in new.inputs][: len(inputs)]
        and attributes == {key: later.get(key) for key in attributes}
    )
