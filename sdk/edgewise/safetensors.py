"""sdk: the safetensors format (github.com/huggingface/safetensors): a header read with distrust, data read by rows."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgewise.errors import CheckpointError
from edgewise.tensors import Streamed

DTYPES = {
    "BOOL": ir.DataType.BOOL,
    "U8": ir.DataType.UINT8,
    "I8": ir.DataType.INT8,
    "I16": ir.DataType.INT16,
    "U16": ir.DataType.UINT16,
    "I32": ir.DataType.INT32,
    "U32": ir.DataType.UINT32,
    "I64": ir.DataType.INT64,
    "U64": ir.DataType.UINT64,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
    "F8_E5M2": ir.DataType.FLOAT8E5M2,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F32": ir.DataType.FLOAT,
    "F64": ir.DataType.DOUBLE,
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: what it is and where its bytes begin, counted from the start of the file."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    offset: int


def read_tensors(path: Path) -> Mapping[str, Streamed]:
    file = os.open(path, os.O_RDONLY)
    size = int.from_bytes(os.pread(file, 8, 0), "little")
    header = json.loads(os.pread(file, size, 8))
    tensors = {}
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        start = 8 + size + fields["data_offsets"][0]
        entry = Entry(name, DTYPES[fields["dtype"]], tuple(fields["shape"]), start)
        tensors[name] = Streamed(entry.shape, entry.dtype, partial(read_rows, file, entry), name=name)
    return tensors


def read_rows(file: int, entry: Entry, start: int, stop: int) -> np.ndarray:
    tail = entry.shape[1:]
    rows = np.empty((stop - start, *tail) if entry.shape else (1,), entry.dtype.numpy())
    row_bytes = rows.nbytes // max(1, len(rows))
    wanted, view, done = rows.nbytes, memoryview(rows.reshape(-1).view(np.uint8)), 0
    while done < wanted:
        got = os.preadv(file, [view[done:]], entry.offset + start * row_bytes + done)
        if not got:
            raise CheckpointError(f"tensor '{entry.name}': the file ended early")
        done += got
    return rows
