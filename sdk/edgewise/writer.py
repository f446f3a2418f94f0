"""sdk: writes an onnx_ir model: the graph as protobuf, the weights streamed beside it a block of rows at a time."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import blake3
import numpy as np
import onnx_ir as ir

from edgewise.tensors import Streamed, streamed

Progress = Callable[[str, int, int], None]
INLINE_BYTES = 1024
ALIGNMENT = 4096


@dataclass(frozen=True)
class Written:
    """A file that was written: size and BLAKE3 hash, for the manifest."""

    path: Path
    bytes: int
    blake3: str


def write_model(model: ir.Model, path: Path, *, progress: Progress | None = None) -> tuple[Written, ...]:
    """Write `path` and, for tensors above 1 KiB, `path` + "_data" beside it."""
    data_path = path.with_name(path.name + "_data")
    placed: dict[object, tuple[int, int]] = {}
    originals: dict[ir.Value, ir.TensorProtocol] = {}
    hasher, offset = blake3.blake3(), 0
    try:
        with data_path.open("wb") as file:
            for value in model.graph.initializers.values():
                if value.const_value is None or value.const_value.nbytes <= INLINE_BYTES:
                    continue
                tensor = streamed(value.const_value)
                if tensor.storage not in placed:
                    padding = bytes(-offset % ALIGNMENT)
                    file.write(padding)
                    hasher.update(padding)
                    offset += len(padding)
                    placed[tensor.storage] = (offset, tensor.nbytes)
                    for start, stop in tensor.blocks():
                        block = np.ascontiguousarray(tensor.read(start, stop)).reshape(-1).view(np.uint8)
                        file.write(block.data)
                        hasher.update(block.data)
                        offset += len(block)
                originals[value] = value.const_value
                start, length = placed[tensor.storage]
                value.const_value = ir.ExternalTensor(
                    data_path.name,
                    start,
                    length,
                    tensor.dtype,
                    shape=ir.Shape(tensor.dims),
                    name=str(value.name),
                    base_dir=path.parent,
                )
            file.flush()
            os.fsync(file.fileno())
        content = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    finally:
        for value, original in originals.items():
            value.const_value = original
    path.write_bytes(content)
    written = [Written(path, len(content), blake3.blake3(content).hexdigest())]
    if offset:
        written.append(Written(data_path, offset, hasher.hexdigest()))
    else:
        data_path.unlink()
    return tuple(written)
