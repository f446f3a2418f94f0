"""sdk: the safetensors format, written: tensors one after the other, a block of rows at a time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgewise.safetensors import DTYPES
from edgewise.tensors import Streamed
from edgewise.writer import Progress

NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 8


def write_tensors(tensors: Mapping[str, Streamed], path: Path, *, progress: Progress | None = None) -> None:
    """Tensors by their names, in that order; transformers wants the metadata."""
    total = sum(tensor.nbytes for tensor in tensors.values())
    done = 0
    with path.open("wb") as file:
        file.write(_header(tensors))
        for tensor in tensors.values():
            _write(tensor, file)
            done += tensor.nbytes
            if progress:
                progress("write", done, total)


def _header(tensors: Mapping[str, Streamed]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.dims), "data_offsets": [offset, end]}
        offset = end
    content = json.dumps(entries, separators=(",", ":")).encode()
    content += b" " * (-len(content) % ALIGNMENT)
    return len(content).to_bytes(8, "little") + content


def _write(tensor: Streamed, file: BinaryIO) -> None:
    for rows in tensor.walk():
        file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
