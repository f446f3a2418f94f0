"""sdk: the safetensors format (github.com/huggingface/safetensors): a header read with distrust, data read by rows.

A file is eight bytes of header length, a JSON header, and the data: tensors one after the other, from the first byte
to the last. Whatever deviates is refused before any data is read.

Data comes through reads, not a memory map: as fast (23 against 25 GB/s from the page cache), nothing of the file
becomes resident, and a file that is cut meanwhile is an error instead of a SIGBUS.
"""

import math
import os
import stat
import weakref
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise import strictjson
from edgewise.errors import CheckpointError
from edgewise.floats import is_finite
from edgewise.options import known
from edgewise.tensors import Streamed

HEADER_BYTES = 16 << 20
TENSORS = 100_000
RANK = 8
NAME_CHARACTERS = 1000

DTYPES = {
    "BOOL": ir.DataType.BOOL,
    "U8": ir.DataType.UINT8,
    "I8": ir.DataType.INT8,
    "U16": ir.DataType.UINT16,
    "I16": ir.DataType.INT16,
    "U32": ir.DataType.UINT32,
    "I32": ir.DataType.INT32,
    "U64": ir.DataType.UINT64,
    "I64": ir.DataType.INT64,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
    "F8_E5M2": ir.DataType.FLOAT8E5M2,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F32": ir.DataType.FLOAT,
    "F64": ir.DataType.DOUBLE,
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: what it is, and which bytes of the data are its own."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    start: int
    stop: int


def read_tensors(path: Path) -> dict[str, Streamed]:
    """The tensors of a file by name, unread. Raises CheckpointError, which names the file."""
    try:
        file = File(path)
        header = _read_header(file)
        data = 8 + len(header)
        entries = parse_header(header, file.size - data)
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return {e.name: Streamed(e.shape, e.dtype, Rows(file, e, data + e.start), name=e.name) for e in entries}


class File:
    """A regular file, open until the last tensor that reads from it is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = FileIO(path)
            weakref.finalize(self, self._file.close)
            status = os.fstat(self._file.fileno())
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("this is not a regular file")
        self._lock = Lock()
        self.size, self.modified = status.st_size, status.st_mtime_ns

    def read(self, offset: int, view: memoryview) -> None:
        """Fill the view. Raises CheckpointError, also when the file is not as it was when it was opened."""
        try:
            while view and (count := self._read(offset, view)):
                view, offset = view[count:], offset + count
            status = os.fstat(self._file.fileno())
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}") from error
        if view or (status.st_size, status.st_mtime_ns) != (self.size, self.modified):
            raise CheckpointError("the file changed since its header was read; start again")

    def _read(self, offset: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [view], offset)
        with self._lock:  # Windows: a file has one position, for all who read it
            self._file.seek(offset)
            return self._file.readinto(view)


def _read_header(file: File) -> bytes:
    prefix = bytearray(min(8, file.size))
    file.read(0, memoryview(prefix))
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > file.size - 8:
        size = f"{file.size:,} bytes"
        raise CheckpointError(f"the file ends within its header ({size}): it is truncated, or not safetensors")
    if length > HEADER_BYTES:
        raise CheckpointError(f"the header has {length:,} bytes; more than {HEADER_BYTES:,} are not read")
    header = bytearray(length)
    file.read(8, memoryview(header))
    return bytes(header)


def parse_header(header: bytes, data_bytes: int) -> list[Entry]:
    """The tensors in the order of their bytes. Raises CheckpointError or ValueError unless they fill the data."""
    if not header.startswith(b"{"):
        raise CheckpointError("the header is not a JSON object: the file is damaged, or not safetensors")
    table = strictjson.loads_object(header)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("__metadata__ is not a table of text")
    if len(table) > TENSORS:
        raise CheckpointError(f"the header lists {len(table):,} tensors; more than {TENSORS:,} are not read")
    entries = sorted((_entry(*item) for item in table.items()), key=lambda entry: (entry.start, entry.stop))
    end = 0
    for entry in entries:
        if entry.start != end:
            problem = "overlaps the tensor before it" if entry.start < end else "leaves a gap before it"
            raise CheckpointError(f"tensor '{entry.name}' {problem}: it begins at byte {entry.start:,}, not {end:,}")
        end = entry.stop
    if end > data_bytes:
        raise CheckpointError(f"the file is truncated: it has {data_bytes:,} bytes of data where {end:,} are declared")
    if end < data_bytes:
        raise CheckpointError(f"{data_bytes - end:,} bytes follow the last tensor: the file is damaged")
    return entries


def _entry(name: str, fields: Any) -> Entry:
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise CheckpointError(f"{name!r:.80} is not a name for a tensor")
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"tensor '{name}' must state exactly its dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"tensor '{name}' has dtype {dtype!r:.40}; known: {known(DTYPES)}")
    if not _is_sizes(shape) or len(shape) > RANK or math.prod(max(1, n) for n in shape) >= 1 << 60:
        raise CheckpointError(f"tensor '{name}' has shape {shape!r:.80}, which is not one of at most {RANK} sizes")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"tensor '{name}' has data_offsets {offsets!r:.80}, which are not a begin and an end")
    size, (start, stop) = math.prod(shape) * DTYPES[dtype].bitwidth // 8, offsets
    if size != stop - start:
        raise CheckpointError(f"tensor '{name}' {dtype} {shape} takes {size:,} bytes; it was given {stop - start:,}")
    return Entry(name, DTYPES[dtype], tuple(shape), start, stop)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


@dataclass
class Rows:
    """Reads rows of one tensor, and refuses NaN and infinity."""

    file: File
    entry: Entry
    offset: int  # of the first row in the file
    finite: int = 0  # rows known to hold only numbers, from the first one on

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop, in the dtype of the file; a scalar is one row."""
        rows = np.empty((stop - start, *self.entry.shape[1:]), self.entry.dtype.numpy())
        row_bytes = rows.nbytes // max(1, len(rows))
        try:
            self.file.read(self.offset + start * row_bytes, rows.reshape(-1).view(np.uint8).data)
        except CheckpointError as error:
            raise CheckpointError(f"{self.file.path}: {error}") from error
        if stop > self.finite:
            self._check_finite(rows, start)
            self.finite = stop if start <= self.finite else self.finite
        return rows

    def _check_finite(self, rows: np.ndarray, start: int) -> None:
        if is_finite(rows, self.entry.dtype):
            return
        bad = next(i for i in range(len(rows)) if not is_finite(rows[i : i + 1], self.entry.dtype))
        where = f"tensor '{self.entry.name}' holds NaN or infinity (row {start + bad:,})"
        raise CheckpointError(f"{self.file.path}: {where}: the checkpoint is damaged, or its training diverged")
