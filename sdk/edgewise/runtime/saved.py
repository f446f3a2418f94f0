"""sdk, runtime: keys and values on the disk: one safetensors file, for sessions of the model that computed them.

A file has one form: the header follows from what it holds, so one that deviates by a byte is damaged.
"""

import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgewise import strictjson
from edgewise.errors import CacheError
from edgewise.folders import OpenFolder
from edgewise.rotary import frequencies
from edgewise.runtime.model import Model

FORMAT = 1
CONTENT = "edgewise keys and values"
HEADER_BYTES = 1 << 20  # more is not read
DIGEST_BYTES = 32
DTYPES = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int8": "I8", "int64": "I64"}

Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Saved:
    """What a file holds: tokens `[n]`, and their keys and values as `Session.restore` takes them.

    Of prompts these are all positions; of sessions, where a layer has a ring, those that are needed to go on.
    """

    tokens: NDArray[np.int64]
    arrays: Arrays
    block: int = 0  # a prompt, computed so many at a time from the first one on; 0: a session


def save(path: str | Path, model: Model, saved: Saved) -> None:
    """Write a file, or replace one: as a whole, or not at all. Only its owner can read it: it tells what was said.

    Raises CacheError.
    """
    if not model.computation:
        raise CacheError(f"{path}: keys and values can be saved of a model that is in a bundle; this one is not")
    if not len(saved.tokens):
        raise CacheError(f"{path} is not written: there are no tokens")
    arrays = [saved.tokens, *saved.arrays]
    header = _header(model, len(saved.tokens), saved.block, _hash(arrays, saved.block))
    try:
        with _replacing(Path(path)) as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for array in arrays:
                file.write(_bytes(array))
    except OSError as error:
        raise CacheError(f"{path} cannot be written: {error.strerror or error}") from error


def load(path: str | Path, model: Model) -> Saved:
    """What `save` wrote for this model. Raises CacheError for anything else, before much of it is read."""
    try:
        with _open(Path(path)) as file:
            return _read(file, model)
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}") from error
    except (CacheError, ValueError) as error:
        raise CacheError(f"{path}: {error}") from error


def _read(file: FileIO, model: Model) -> Saved:
    size = os.fstat(file.fileno()).st_size
    header = _read_header(file, size)
    fields = strictjson.loads_object(header).get("__metadata__")
    if not isinstance(fields, dict) or fields.get("content") != CONTENT:
        raise CacheError("these are not keys and values that edgewise saved")
    _check_model(fields, model)
    count, block = _number(fields, "tokens"), _number(fields, "block")
    if not 0 < count <= model.context:
        raise CacheError(f"it holds {count:,} tokens, and the context is {model.context:,}")
    if header != _header(model, count, block, str(fields.get("blake2b"))):
        raise CacheError("its header is not as it was written: the file is damaged")
    arrays = [np.empty(shape, dtype) for _, dtype, shape in _layout(model, count, block)]
    expected = 8 + len(header) + sum(array.nbytes for array in arrays)
    if size != expected:
        raise CacheError(f"it has {size:,} bytes instead of {expected:,}: the file is damaged")
    for array in arrays:
        _fill(file, _bytes(array))
    if _hash(arrays, block) != fields["blake2b"]:
        raise CacheError("its content does not match its hash: the file is damaged")
    return Saved(arrays[0], arrays[1:], block)


def _read_header(file: FileIO, size: int) -> bytes:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 0 < length <= min(size - 8, HEADER_BYTES):
        raise CacheError(f"its {size:,} bytes are not those of a safetensors file, or not all of them")
    header = bytearray(length)
    _fill(file, memoryview(header))
    return bytes(header)


def _check_model(fields: Mapping[str, Any], model: Model) -> None:
    if _number(fields, "format") != FORMAT:
        raise CacheError(f"it has format {fields['format']:.20}, and this edgewise reads {FORMAT}")
    if fields.get("model") != model.computation:
        raise CacheError("it was saved from another bundle" + (", or for another source" if model.source else ""))
    if fields.get("rotary") != _rotary(model):
        raise CacheError(f"it was saved with the rotary table of another context than {model.context:,}")


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = str(fields.get(name))
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise CacheError(f"its header states no {name}: the file is damaged")
    return int(value)


def _header(model: Model, count: int, block: int, digest: str) -> bytes:
    table: dict[str, Any] = {
        "__metadata__": {
            "content": CONTENT,
            "format": str(FORMAT),
            "model": model.computation,
            "rotary": _rotary(model),
            "tokens": str(count),
            "block": str(block),
            "blake2b": digest,
        }
    }
    end = 0
    for name, dtype, shape in _layout(model, count, block):
        start, end = end, end + dtype.itemsize * int(np.prod(shape))
        table[name] = {"dtype": DTYPES[dtype.name], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _layout(model: Model, count: int, block: int) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """The tensors of a file in order: name, type and shape."""
    held = [count if block else each.kept(count) for each in model.cache]
    cache = [(each.past, each.dtype, (each.heads, n, each.dim)) for each, n in zip(model.cache, held, strict=True)]
    return [("tokens", np.dtype(np.int64), (count,)), *cache]


def _rotary(model: Model) -> str:
    """A hash of the tables that follow the context; empty where none does."""
    tables = [
        frequencies(rotary, model.table_context) for rotary in model.facts.rotary.values() if rotary.follows_context
    ]
    return _hash(tables) if tables else ""


def _hash(arrays: Arrays, block: int = 0) -> str:
    hasher = blake2b(b"%d" % block, digest_size=DIGEST_BYTES)
    for array in arrays:
        hasher.update(_bytes(array))
    return hasher.hexdigest()


def _bytes(array: NDArray[Any]) -> memoryview:
    assert array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8).data


def _fill(file: FileIO, view: memoryview) -> None:
    while view:
        count = file.readinto(view)
        if not count:
            raise CacheError("it became shorter while it was read")
        view = view[count:]


def _open(path: Path) -> FileIO:
    """A plain file to read; a pipe would keep us waiting."""
    flags = [getattr(os, name, 0) for name in ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC")]  # no system has them all
    file = FileIO(os.open(path, os.O_RDONLY | sum(flags)))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise CacheError("this is not a plain file")
    return file


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name once it is complete and on the disk; where that fails, nothing is left of it."""
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
    with OpenFolder(path.parent) as folder:
        folder.sync()
