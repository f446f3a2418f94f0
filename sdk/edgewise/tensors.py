"""sdk: tensors that stay on disk: views of a checkpoint, read and transformed a block of rows at a time.

A `Streamed` is an `onnx_ir` tensor whose content is never held whole unless somebody asks for it: `read(a, b)` gives
rows a to b of the first axis. Transforms (cast, transpose, slices, concatenations) are views too. Peak memory of
whoever walks over `blocks()` follows the block, not the tensor.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

BLOCK_BYTES = 4 << 20  # what a walk over a tensor holds at a time

Read = Callable[[int, int], np.ndarray]


class Streamed(ir.LazyTensor):
    """A tensor read a block of rows at a time.

    `storage` names the bytes behind it: two tensors of one storage are the same bytes (a tied embedding, or one blob
    seen in two shapes), and are written once.
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
        super().__init__((columns, rows), base.dtype, self._read_columns, name=name or base.name)
        self.base = base

    def _read_columns(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, self.base.dims[0]), self.dtype.numpy())
        for a, b in self.base.blocks():
            out[:, a:b] = self.base.read(a, b)[:, start:stop].T
        return out


def constant(array: np.ndarray, *, name: str | None = None) -> Streamed:
    """A small tensor that is held in memory."""
    dtype = ir.DataType.from_numpy(array.dtype)
    return Streamed(array.shape, dtype, lambda a, b: array.reshape(array.shape or (1,))[a:b], name=name)


def transpose(matrix: Streamed) -> Streamed:
    """The transpose, as a view; the transpose of a transpose is the matrix itself."""
    return matrix.base if isinstance(matrix, Transposed) else Transposed(matrix)


def map_rows(
    tensor: Streamed, function: Callable[[np.ndarray], np.ndarray], *, dtype: ir.DataType | None = None
) -> Streamed:
    """`function` applied to each block of rows; it keeps the shape."""
    return Streamed(tensor.dims, dtype or tensor.dtype, lambda a, b: function(tensor.read(a, b)), name=tensor.name)


def cast(tensor: Streamed, dtype: ir.DataType) -> Streamed:
    """The tensor in another float type, as a view; bfloat16 to float32 is a shift, at the speed of memory."""
    if tensor.dtype == dtype:
        return tensor
    widen = tensor.dtype == ir.DataType.BFLOAT16 and dtype == ir.DataType.FLOAT
    function = _widen if widen else lambda rows: rows.astype(dtype.numpy())
    view = map_rows(tensor, function, dtype=dtype)
    view.storage = ("cast", tensor.storage, dtype)
    return view


def _widen(rows: np.ndarray) -> np.ndarray:
    bits = rows.view(np.uint16).astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def slice_rows(tensor: Streamed, start: int, stop: int, *, name: str | None = None) -> Streamed:
    """Rows start to stop, as a view."""
    shape = (stop - start, *tensor.dims[1:])
    return Streamed(shape, tensor.dtype, lambda a, b: tensor.read(start + a, start + b), name=name or tensor.name)


def reshape(tensor: Streamed, shape: Sequence[int], *, name: str | None = None) -> Streamed:
    """The same bytes with other trailing axes; the first axis stays."""
    assert shape[0] == tensor.dims[0] and np.prod(shape) == np.prod(tensor.dims)
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
    ends = np.cumsum([part.dims[0] for part in parts])

    def read(start: int, stop: int) -> np.ndarray:
        pieces = []
        for part, end in zip(parts, ends, strict=True):
            low = int(end) - part.dims[0]
            a, b = max(start, low), min(stop, int(end))
            if a < b:
                pieces.append(part.read(a - low, b - low))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    return Streamed((int(ends[-1]), *first.dims[1:]), first.dtype, read, name=name or first.name)


def streamed(tensor: Any) -> Streamed:
    """Any onnx_ir tensor as a Streamed; one that is not streamed is read whole when it is needed."""
    if isinstance(tensor, Streamed):
        return tensor
    dims = tuple(int(n) for n in tensor.shape)
    return Streamed(dims, tensor.dtype, lambda a, b: tensor.numpy().reshape(dims or (1,))[a:b], name=tensor.name)
