"""plugins, quantize: GPTQ (arXiv 2210.17323): each column is rounded, and the columns after it make up for its error.

Grids are static: each block's scale and zero point come from the weights as they were, by the search of `grid`; for
each row weighted by the diagonal of the second moments or not, whichever ends closer. So columns can be rounded in any
order (here the ones with the largest inputs first, "activation order") while blocks stay where they are, and the format
needs no index of groups.

In the order of rounding, for column j, with U of `factor` and errors e of the columns before it

    w   = W[j] - sum over i < j of U[i, j] * e[i]
    e[j] = (w - rounded(w)) / U[j, j]

The sums over columns of earlier batches are matrix products ("lazy batch updates"). What comes out is refined: see
`refine`. A row that would be worse off, by the error that the second moments give it, keeps round to nearest. A weight
that is zero stays zero, as 0 is on every grid, and others make up for what it would have to be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.quantized import Format
from edgewise.tensors import Streamed
from edgewise_plugins.quantize.blocks import Coded, in_blocks, quantize_all
from edgewise_plugins.quantize.drift import Drift
from edgewise_plugins.quantize.factor import Factor
from edgewise_plugins.quantize.grid import grid_for
from edgewise_plugins.quantize.nearest import HALF, nearest
from edgewise_plugins.quantize.refine import refine

BATCH = 128  # columns between matrix products


@dataclass(frozen=True)
class Moments:
    """The mean of x xᵀ over the inputs x of a matrix, float32 `[columns, columns]`, and its factor.

    drift: how far the inputs are from those of the float model, where that is to be made up for.
    """

    gram: np.ndarray
    factor: Factor
    drift: Drift | None = None


@dataclass(frozen=True)
class Compensated:
    """Rows quantized by GPTQ, and how far their products are from those that are wanted: tr(D H Dᵀ).

    D are the differences of the weights: `error` by GPTQ, `nearest_error` by round to nearest. `kept_rows` rows are
    rounded to nearest after all.
    """

    coded: Coded
    error: float
    nearest_error: float
    kept_rows: int


def gptq(matrix: Streamed, start: int, stop: int, moments: Moments, form: Format) -> Compensated:
    """Rows start to stop. Raises CheckpointError for NaN and infinity."""
    weights = matrix.read(start, stop).astype(np.float32, copy=False)
    simple, zeros = quantize_all(nearest, in_blocks(weights, form.block_size), form, matrix, start), weights == 0
    if moments.drift:
        weights = moments.drift.made_up_for(weights, start)
    blocks, damped = in_blocks(weights, form.block_size), moments.factor.damped(moments.gram)
    grids = [
        quantize_all(grid_for(importance, form), blocks, form, matrix, start)
        for importance in (moments.gram.diagonal(), None)
    ]
    found, _ = _closest([compensated(weights, grid, moments.factor, form, zeros) for grid in grids], weights, damped)
    found, errors = _closest([refine(found, weights, damped, form, zeros), simple], weights, moments.gram)
    best = errors.argmin(axis=0)
    total, nearest_error = (float(sums.sum(dtype=np.float64)) for sums in (errors.min(axis=0), errors[-1]))
    return Compensated(found, total, nearest_error, int(best.sum()))


def _closest(candidates: Sequence[Coded], weights: np.ndarray, gram: np.ndarray) -> tuple[Coded, np.ndarray]:
    """Each row by the candidate that comes closest to the float product; and all errors, `[candidates, rows]`."""
    errors = np.stack([_error(coded, weights, gram) for coded in candidates])
    best, rows = errors.argmin(axis=0), np.arange(len(weights))
    return Coded(*(np.stack(arrays)[best, rows] for arrays in zip(*candidates, strict=True))), errors


def compensated(
    weights: np.ndarray, start: Coded, factor: Factor, form: Format, zeros: np.ndarray | None = None
) -> Coded:
    """Weights `[rows, columns]` with the scales and zero points of `start`, each column making up for those before.

    `zeros`, bool of the same shape, become 0.
    """
    rows, columns = weights.shape
    codes = np.empty((form.blocks(columns) * form.block_size, rows), np.uint8)
    codes.reshape(-1, form.block_size, rows)[:] = start.zero_points.T[:, None]  # what stands beyond the matrix
    errors = np.empty((columns, rows), np.float32)
    turned, scales, zero_points = (np.ascontiguousarray(a.T) for a in (weights, start.scales, start.zero_points))
    pinned = None if zeros is None or not zeros.any() else zeros.T
    for first in range(0, columns, BATCH):
        some = slice(first, min(first + BATCH, columns))
        chosen = factor.order[some]
        batch = turned[chosen]
        batch -= factor.upper[:first, some].T @ errors[:first]
        blocks = chosen // form.block_size
        codes[chosen] = _round_batch(
            batch,
            scales[blocks],
            zero_points[blocks],
            factor.upper[some, some],
            errors[some],
            form,
            None if pinned is None else pinned[chosen],
        )
    return start._replace(codes=np.ascontiguousarray(codes.T).reshape(rows, -1, form.block_size))


def _round_batch(
    batch: np.ndarray,
    scales: np.ndarray,
    zero_points: np.ndarray,
    upper: np.ndarray,
    errors: np.ndarray,
    form: Format,
    zeros: np.ndarray | None,
) -> np.ndarray:
    """The codes of some columns, one after the other; all arrays `[columns, rows]`, `errors` is written."""
    codes = np.empty(batch.shape, np.uint8)
    inverse, shifted, by_column = 1 / scales, zero_points + HALF, np.ascontiguousarray(upper.T)
    for j, weight in enumerate(batch):
        if j:
            weight -= by_column[j, :j] @ errors[:j]
        code = weight * inverse[j]
        code += shifted[j]
        np.clip(code, 0, form.top, out=code)
        codes[j] = code  # drops the fraction
        if zeros is not None:
            np.copyto(codes[j], zero_points[j], where=zeros[j], casting="unsafe")
        rounded = codes[j] - zero_points[j]
        rounded *= scales[j]
        np.subtract(weight, rounded, out=errors[j])
        errors[j] /= upper[j, j]
    return codes


def _error(coded: Coded, weights: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """How far from the float product each row's is: the diagonal of D H D', `[rows]`."""
    difference = coded.weights().reshape(len(weights), -1)[:, : weights.shape[1]]
    difference = difference - weights
    return np.asarray(np.einsum("rk,rk->r", difference @ gram, difference))
