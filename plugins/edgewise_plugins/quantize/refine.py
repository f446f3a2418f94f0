"""plugins, quantize: codes and scales that are found get closer, by turns, to the least error of the products.

With D the differences of the weights and H the second moments of the inputs, both lower tr(D H Dᵀ), row by row:

    scales   those of least squares for the codes: of each row, with S its steps (code - zero_point) cut into blocks,
             sum over c of (S[b] H S[c]ᵀ) scale[c] = S[b] H wᵀ       for each block b
    codes    column by column, the nearest to w[j] - (D H)[j] / H[j, j] + D[j], all others being as they are:
             cyclic coordinate descent (QuantEase, arXiv 2309.01885)

Zero points stay. GPTQ rounds each column once, not knowing what becomes of those after it; this knows.
"""

import numpy as np

from edgewise.quantized import Format
from edgewise_plugins.quantize.blocks import Coded
from edgewise_plugins.quantize.nearest import HALF, SMALLEST

ROUNDS = 2
BATCH = 128  # columns between matrix products
RIDGE = 1e-6  # of the diagonal: blocks whose steps repeat each other's


def refine(coded: Coded, weights: np.ndarray, gram: np.ndarray, form: Format, zeros: np.ndarray | None = None) -> Coded:
    """Codes and scales near `coded`, for weights `[rows, columns]` and second moments `[columns, columns]`.

    Codes of `zeros`, bool `[rows, columns]`, stay.
    """
    for _ in range(ROUNDS):
        coded = descend(fit_scales(coded, weights, gram), weights, gram, form, zeros)
    return fit_scales(coded, weights, gram)


def fit_scales(coded: Coded, weights: np.ndarray, gram: np.ndarray) -> Coded:
    """The same codes with the scales of least squares; a block that is all zeros keeps its own."""
    steps = _steps(coded, weights.shape[1])
    rows, blocks, size = coded.codes.shape
    edges = np.arange(0, weights.shape[1], size)
    products, wanted = np.empty((rows, blocks, blocks)), np.empty((rows, blocks))
    for block, first in enumerate(edges):
        some = slice(first, first + size)
        moments = steps[:, some] @ gram[some]
        products[:, block] = np.add.reduceat(moments * steps, edges, axis=1)
        wanted[:, block] = np.einsum("rk,rk->r", moments, weights)
    diagonal = np.einsum("rbb->rb", products)
    diagonal += np.where(diagonal > 0, RIDGE * diagonal, 1)
    scales = np.linalg.solve(products, wanted[..., None])[..., 0].astype(np.float32)
    return coded._replace(scales=np.where(np.abs(scales) > SMALLEST, scales, coded.scales))


def descend(
    coded: Coded, weights: np.ndarray, gram: np.ndarray, form: Format, zeros: np.ndarray | None = None
) -> Coded:
    """Each column's codes as they are best, once, from the first to the last."""
    rows, columns = weights.shape
    codes = np.ascontiguousarray(coded.codes.reshape(rows, -1).T)
    scales, zero_points = (np.ascontiguousarray(a.T) for a in (coded.scales, coded.zero_points))
    differences = coded.weights().reshape(rows, -1)[:, :columns] - weights
    pulls = gram @ differences.T  # [columns, rows]
    pinned = None if zeros is None or not zeros.any() else zeros.T
    for first in range(0, columns, BATCH):
        some = slice(first, min(first + BATCH, columns))
        blocks = np.arange(some.start, some.stop) // form.block_size
        still = None if pinned is None else pinned[some]
        moved = _descend_batch(
            codes[some], scales[blocks], zero_points[blocks], gram[some, some], pulls[some], form, still
        )
        pulls[some.stop :] += gram[some.stop :, some] @ moved
    return coded._replace(codes=np.ascontiguousarray(codes.T).reshape(coded.codes.shape))


def _descend_batch(
    codes: np.ndarray,
    scales: np.ndarray,
    zero_points: np.ndarray,
    gram: np.ndarray,
    pulls: np.ndarray,
    form: Format,
    still: np.ndarray | None,
) -> np.ndarray:
    """How far the weights of some columns move; all arrays `[columns, rows]`, `codes` is written but where `still`."""
    moved = np.zeros(codes.shape, np.float32)
    for j, code in enumerate(codes):
        if not gram[j, j] > 0:
            continue
        pull = pulls[j] + gram[j, :j] @ moved[:j]
        best = code - pull / (gram[j, j] * scales[j])
        best += HALF
        np.clip(best, 0, form.top, out=best)
        np.floor(best, out=best)
        if still is not None:
            np.copyto(best, code, where=still[j])
        moved[j] = (best - code) * scales[j]
        code[:] = best
    return moved


def _steps(coded: Coded, columns: int) -> np.ndarray:
    steps = coded.codes.astype(np.float32)
    steps -= coded.zero_points[..., None]
    return steps.reshape(len(steps), -1)[:, :columns]
