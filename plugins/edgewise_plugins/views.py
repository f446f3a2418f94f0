"""plugins: matrices `[out, in]` with rows or columns scaled or turned: views, like all weights of a graph."""

from dataclasses import dataclass, field

import numpy as np

from edgewise.tensors import Streamed, map_rows

SPAN_BYTES = 8 << 20


def scale_columns(matrix: Streamed, factors: np.ndarray) -> Streamed:
    """Each column times its factor, `[in]`."""
    return map_rows(matrix, lambda rows: rows * factors)


def scale_rows(tensor: Streamed, factors: np.ndarray) -> Streamed:
    """Each row of a matrix, or element of a bias, times its factor, `[out]`."""
    tail = (1,) * (len(tensor.dims) - 1)

    def read(start: int, stop: int) -> np.ndarray:
        return np.asarray(tensor.read(start, stop) * factors[start:stop].reshape(-1, *tail))

    return Streamed(tensor.dims, tensor.dtype, read, name=tensor.name)


def turn_columns(matrix: Streamed, turn: np.ndarray) -> Streamed:
    """Each run of `len(turn)` columns times `turn`, `[unit, unit]`."""
    unit = len(turn)
    return map_rows(matrix, lambda rows: (rows.reshape(-1, unit) @ turn).reshape(rows.shape))


@dataclass
class Recent:
    """The rows that were turned last, by any of the views that share this: readers take few rows at a time."""

    owner: object = None
    start: int = 0
    rows: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def covers(self, owner: object, start: int, stop: int) -> bool:
        return self.owner is owner and self.start <= start and stop <= self.start + len(self.rows)


def turn_rows(tensor: Streamed, turn: np.ndarray, recent: Recent) -> Streamed:
    """`turn`ᵀ times each run of `len(turn)` rows of a matrix, or elements of a bias."""
    unit, total = len(turn), tensor.dims[0]
    identity = object()
    span = max(1, SPAN_BYTES * total // tensor.nbytes)

    def read(start: int, stop: int) -> np.ndarray:
        if stop - start >= span:
            return _turned(tensor, turn, start, stop)
        if not recent.covers(identity, start, stop):
            end = min(max(stop, start + span), total)
            recent.owner, recent.start, recent.rows = identity, start, _turned(tensor, turn, start, end)
        return recent.rows[start - recent.start : stop - recent.start].copy()

    assert total % unit == 0
    return Streamed(tensor.dims, tensor.dtype, read, name=tensor.name)


def _turned(tensor: Streamed, turn: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Rows start to stop, summed up from some rows of the run at a time."""
    unit = len(turn)
    out = np.zeros((stop - start, *tensor.dims[1:]), np.float32)
    step = max(1, SPAN_BYTES * tensor.dims[0] // tensor.nbytes)
    for run in range(start // unit * unit, stop, unit):
        a, b = max(start, run), min(stop, run + unit)
        for first in range(0, unit, step):
            rows = tensor.read(run + first, run + min(first + step, unit))
            out[a - start : b - start] += turn[first : first + step, a - run : b - run].T @ rows
    return out


def take_rows(tensor: Streamed, chosen: np.ndarray) -> Streamed:
    """Some rows of a matrix, or elements of a bias, in ascending order."""

    def read(start: int, stop: int) -> np.ndarray:
        wanted = chosen[start:stop]
        if not len(wanted):
            return tensor.read(0, 0)
        rows: np.ndarray = tensor.read(int(wanted[0]), int(wanted[-1]) + 1)[wanted - wanted[0]]
        return rows

    return Streamed((len(chosen), *tensor.dims[1:]), tensor.dtype, read, name=tensor.name)


def take_columns(matrix: Streamed, chosen: np.ndarray) -> Streamed:
    """Some columns of a matrix."""

    def read(start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(matrix.read(start, stop)[:, chosen])

    return Streamed((matrix.dims[0], len(chosen)), matrix.dtype, read, name=matrix.name)
