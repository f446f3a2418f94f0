"""sdk: tensors that stay on disk: views of a checkpoint, read and transformed a block of rows at a time.

A `Streamed` is an `onnx_ir` tensor whose content is never held whole unless somebody asks for it: `read(a, b)` gives
rows a to b of the first axis. Transforms (cast, transpose, slices, concatenations) are views too. Peak memory of
whoever walks over it follows the block, not the tensor.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.floats import convert

BLOCK_BYTES = 4 << 20  # what a walk over a tensor holds at a time
TRANSPOSE_ELEMENTS = 16 << 20  # for a transpose more, as each block of it reads the whole matrix
STRIP = 32  # rows turned at a time: their columns still share cache lines

Read = Callable[[int, int], np.ndarray]


class Streamed(ir.LazyTensor):
    """A tensor read a block of rows at a time.

    `storage` names the bytes behind it: two tensors of equal storage are the same bytes (a tied embedding, or one
    blob seen in two shapes), and are written once. A transform of equal tensors gives equal storage.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: ir.DataType,
        read: Read,
        *,
        name: str | None = None,
        storage: object = None,
    ) -> None:
        super().__init__(self._whole, dtype, ir.Shape(shape), name=name)
        self._read = read
        self.dims = tuple(int(n) for n in shape)
        self.storage: object = storage if storage is not None else self

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of the first axis, `[stop - start, *shape[1:]]`, in the tensor's dtype."""
        return self._read(start, stop)

    def walk(self) -> Iterator[np.ndarray]:
        """All rows in order, a block at a time."""
        for start, stop in self.blocks():
            yield self.read(start, stop)

    def blocks(self, budget: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
        """Row ranges that together cover the tensor, each of at most `budget` bytes (one row at the least)."""
        rows = self.dims[0] if self.dims else 1
        step = max(1, budget * rows // max(1, self.nbytes))
        for start in range(0, rows, step):
            yield start, min(start + step, rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.dtype}, {list(self.dims)})"

    def _whole(self) -> ir.TensorProtocol:
        array = self.read(0, self.dims[0] if self.dims else 1)
        return ir.tensor(array.reshape(self.dims), dtype=self.dtype, name=self.name)


class Transposed(Streamed):
    """The transpose of a matrix, `[K, N]` of `[N, K]`; `base` is the matrix as it is stored."""

    def __init__(self, base: Streamed, *, name: str | None = None) -> None:
        rows, columns = base.dims
        super().__init__(
            (columns, rows),
            base.dtype,
            self._read_columns,
            name=name or base.name,
            storage=("transpose", base.storage),
        )
        self.base = base

    def blocks(self, budget: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
        return super().blocks(max(budget, TRANSPOSE_ELEMENTS * self.dtype.bitwidth // 8))

    def _read_columns(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, self.base.dims[0]), self.dtype.numpy())
        for a, b in self.base.blocks():
            columns, turned = self.base.read(a, b)[:, start:stop], out[:, a:b]
            for i in range(0, b - a, STRIP):
                turned[:, i : i + STRIP] = columns[i : i + STRIP].T
        return out


class Cast(Streamed):
    """A tensor in another dtype; rows are converted as they are read."""

    def __init__(self, base: Streamed, dtype: ir.DataType, *, name: str | None = None) -> None:
        super().__init__(base.dims, dtype, self._read_converted, name=name or base.name, storage=(dtype, base.storage))
        self.base = base

    def walk(self) -> Iterator[np.ndarray]:
        for rows in self.base.walk():
            row_bytes = rows.size // max(1, len(rows)) * self.dtype.bitwidth // 8
            step = max(1, BLOCK_BYTES // max(1, row_bytes))
            for i in range(0, len(rows), step):
                yield self.convert(rows[i : i + step])
            del rows  # or it is held while the next ones are read

    def blocks(self, budget: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
        return self.base.blocks(budget * self.base.dtype.bitwidth // self.dtype.bitwidth)

    def convert(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the base in this dtype."""
        return convert(rows, self.dtype)

    def _read_converted(self, start: int, stop: int) -> np.ndarray:
        return self.convert(self.base.read(start, stop))


class Stacked(Streamed):
    """Every `rows` rows of a tensor as one element of a stack, `[n, rows, ...]`: the matrices of all experts."""

    def __init__(self, base: Streamed, rows: int, *, name: str | None = None) -> None:
        shape = (base.dims[0] // rows, rows, *base.dims[1:])
        assert math.prod(shape) == math.prod(base.dims)
        super().__init__(shape, base.dtype, self._read_elements, name=name or base.name, storage=base.storage)
        self.base = base

    def walk(self) -> Iterator[np.ndarray]:
        return self.base.walk()

    def _read_elements(self, start: int, stop: int) -> np.ndarray:
        rows = self.dims[1]
        return self.base.read(start * rows, stop * rows).reshape(stop - start, *self.dims[1:])


def constant(array: np.ndarray, *, name: str | None = None) -> Streamed:
    """A small tensor that is held in memory."""
    dtype = ir.DataType.from_numpy(array.dtype)
    return Streamed(array.shape, dtype, lambda a, b: array.reshape(array.shape or (1,))[a:b], name=name)


def transpose(matrix: Streamed) -> Streamed:
    """The transpose, as a view; the transpose of a transpose is the matrix itself."""
    if isinstance(matrix, Cast):
        return Cast(transpose(matrix.base), matrix.dtype, name=matrix.name)  # turns the narrower type
    return matrix.base if isinstance(matrix, Transposed) else Transposed(matrix)


def cast(tensor: Streamed, dtype: ir.DataType) -> Streamed:
    """The tensor in another dtype, as a view."""
    return tensor if tensor.dtype == dtype else Cast(tensor, dtype)


def map_rows(
    tensor: Streamed, function: Callable[[np.ndarray], np.ndarray], *, dtype: ir.DataType | None = None
) -> Streamed:
    """`function` applied to each block of rows; it keeps the shape."""
    return Streamed(tensor.dims, dtype or tensor.dtype, lambda a, b: function(tensor.read(a, b)), name=tensor.name)


def slice_rows(tensor: Streamed, start: int, stop: int, *, name: str | None = None) -> Streamed:
    """Rows start to stop, as a view."""
    return Streamed(
        (stop - start, *tensor.dims[1:]),
        tensor.dtype,
        lambda a, b: tensor.read(start + a, start + b),
        name=name or tensor.name,
        storage=("rows", start, stop, tensor.storage),
    )


def element(tensor: Streamed, index: int, start: int, stop: int, *, name: str | None = None) -> Streamed:
    """Rows start to stop of one element of a stack `[n, rows, ...]`, as a view: a matrix of one expert."""
    return Streamed(
        (stop - start, *tensor.dims[2:]),
        tensor.dtype,
        lambda a, b: tensor.read(index, index + 1)[0, start + a : start + b],
        name=name or tensor.name,
        storage=("element", index, start, stop, tensor.storage),
    )


def reshape(tensor: Streamed, shape: Sequence[int], *, name: str | None = None) -> Streamed:
    """The same bytes with other trailing axes; the first axis stays."""
    assert shape[0] == tensor.dims[0]
    assert math.prod(shape) == math.prod(tensor.dims)
    tail = tuple(shape[1:])
    return Streamed(
        shape,
        tensor.dtype,
        lambda a, b: tensor.read(a, b).reshape(b - a, *tail),
        name=name or tensor.name,
        storage=tensor.storage,
    )


def concatenate(parts: Sequence[Streamed], *, name: str | None = None) -> Streamed:
    """The parts one below the other, as a view: packed projections, merged experts."""
    first = parts[0]
    assert all(part.dtype == first.dtype and part.dims[1:] == first.dims[1:] for part in parts)
    ends = np.cumsum([part.dims[0] for part in parts]).tolist()

    def read(start: int, stop: int) -> np.ndarray:
        pieces = []
        for part, end in zip(parts, ends, strict=True):
            low = end - part.dims[0]
            a, b = max(start, low), min(stop, end)
            if a < b:
                pieces.append(part.read(a - low, b - low))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    return Streamed(
        (ends[-1], *first.dims[1:]),
        first.dtype,
        read,
        name=name or first.name,
        storage=("concatenate", *(part.storage for part in parts)),
    )


def streamed(tensor: Any) -> Streamed:
    """Any onnx_ir tensor as a Streamed; one that is not streamed is read whole when it is needed."""
    if isinstance(tensor, Streamed):
        return tensor
    dims = tuple(int(n) for n in tensor.shape)
    return Streamed(dims, tensor.dtype, lambda a, b: tensor.numpy().reshape(dims or (1,))[a:b], name=tensor.name)


def storage(tensor: ir.TensorProtocol) -> object:
    """What a tensor's bytes are known by: equal for two tensors that are written once."""
    if isinstance(tensor, ir.ExternalTensor):
        return str(tensor.path), tensor.offset, tensor.length
    return tensor.storage if isinstance(tensor, Streamed) else id(tensor)
