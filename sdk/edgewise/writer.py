"""sdk: writes an onnx_ir model: the graph as protobuf, the weights streamed beside it a block of rows at a time.

Tensors lie in graph order at multiples of 64 bytes (a cache line), large ones at multiples of a page, as the ONNX
specification of external data recommends for mapping. ONNX Runtime maps a tensor from any offset.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import blake3
import numpy as np
import onnx_ir as ir

from edgewise.errors import BundleError, EdgewiseError, GraphError
from edgewise.tensors import Streamed, storage

Progress = Callable[[str, int, int], None]  # what is done, how much of it, out of how much

INLINE_BYTES = 1 << 10  # up to this a tensor stays in the graph
LINE, PAGE = 64, 4096
PAGED_BYTES = 1 << 20  # from this on a tensor begins at a page


@dataclass(frozen=True)
class Written:
    """A file that was written: its size, and BLAKE3 of its content in hexadecimal."""

    path: Path
    bytes: int
    blake3: str


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in which data file, and from which byte on."""

    tensor: ir.TensorProtocol
    file: str
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.tensor.nbytes


def write_model(
    model: ir.Model, path: Path, *, beside: tuple[ir.Model, Path] | None = None, progress: Progress | None = None
) -> tuple[Written, ...]:
    """Write the graph to `path` and its tensors above 1 KiB to `path` + "_data", both new files, on the disk when it
    returns. The model stays as it was.

    `beside`: another model, and its path in the same folder; what is in its data file is read from there.
    The same model gives the same bytes; tensors of equal `storage` are written once. Raises BundleError where the
    files cannot be written (a full disk), and then leaves nothing behind.
    """
    data_path = _data_path(path)
    stored = {storage(p.tensor): p for p in _places(beside[0], _data_path(beside[1]).name).values()} if beside else {}
    places = _places(model, data_path.name, stored)
    layout = list({place.offset: place for place in places.values() if place.file == data_path.name}.values())
    graph = _serialize(model, places)
    total = layout[-1].end if layout else 0
    try:
        _check_space(path.parent, total + len(graph))
        with ExitStack() as outputs:
            files = [outputs.enter_context(Output(path))]
            files[0].write(memoryview(graph))
            if layout:
                files.append(outputs.enter_context(Output(data_path)))
                for place in layout:
                    _write_tensor(place, files[1], total, progress)
            return tuple(file.finish() for file in files)
    except FileExistsError as error:
        raise BundleError(f"{error.filename} exists; it is not overwritten") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be written: {error.strerror or error}; nothing is left of it") from error


def _data_path(path: Path) -> Path:
    return path.with_name(path.name + "_data")


def _places(model: ir.Model, file: str, elsewhere: Mapping[object, Place] | None = None) -> dict[ir.Value, Place]:
    """A place for each initializer that is not written inline: in the data file, unless its bytes are elsewhere."""
    places: dict[ir.Value, Place] = {}
    stored = dict(elsewhere or {})
    end = 0
    for value in _initializers(model):
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes <= INLINE_BYTES:
            continue
        known_by = storage(tensor)
        if known_by not in stored:
            alignment = PAGE if tensor.nbytes >= PAGED_BYTES else LINE
            stored[known_by] = Place(tensor, file, -(-end // alignment) * alignment)
            end = stored[known_by].end
        places[value] = stored[known_by]
    return places


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.initializers.values()


def _serialize(model: ir.Model, places: dict[ir.Value, Place]) -> bytes:
    """The graph, with references to data files in place of the tensors."""
    originals = {value: value.const_value for value in places}
    try:
        for value, place in places.items():
            tensor = originals[value]
            assert tensor is not None
            shape = ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor(
                place.file, place.offset, tensor.nbytes, tensor.dtype, shape=shape, name=str(value.name)
            )
        return bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
    except ir.serde.SerdeError as error:  # inline tensors are read here; the reason is below
        cause: BaseException | None = error
        while cause and not isinstance(cause, EdgewiseError):
            cause = cause.__cause__
        raise cause or error from error
    finally:
        for value, original in originals.items():
            value.const_value = original


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise BundleError(f"{folder} has {free:,} bytes left; the model takes {size:,}: free some, or write elsewhere")


def _write_tensor(place: Place, file: "Output", total: int, progress: Progress | None) -> None:
    file.pad(place.offset)
    for block in _content(place.tensor):
        file.write(block)
        del block  # or it is held while the next one is made
        if progress:
            progress("write", file.size, total)
    if file.size != place.end:
        name, given = place.tensor.name, file.size - place.offset
        raise GraphError(f"tensor '{name}' gave {given:,} bytes; its shape and type say {place.tensor.nbytes:,}")


def _content(tensor: ir.TensorProtocol) -> Iterator[memoryview]:
    if isinstance(tensor, Streamed):
        return map(_bytes, tensor.walk())
    return iter([memoryview(tensor.tobytes())])


def _bytes(rows: np.ndarray) -> memoryview:
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data


class Output:
    """A new file, hashed as it is written, and removed again unless the `with` block ends well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.hash = blake3.blake3()

    def __enter__(self) -> Self:
        self.file = self.path.open("xb", buffering=0)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.file.close()
        if error is not None:
            self.path.unlink()

    def write(self, block: memoryview) -> None:
        self.hash.update(block)
        self.size += len(block)
        while block:
            block = block[self.file.write(block) :]

    def pad(self, offset: int) -> None:
        """Zeros up to an offset."""
        self.write(memoryview(bytes(offset - self.size)))

    def finish(self) -> Written:
        os.fsync(self.file.fileno())
        return Written(self.path, self.size, self.hash.hexdigest())
