"""plugins, quantize: half-quadratic quantization (mobiusml.github.io/hqq_blog), with zero points that stay whole.

Minimises sum |w - scale * (code - zero_point)|^p with p = 0.7, which lets a few weights be far off where many come
closer. No data is needed. With errors in steps of the grid, each iteration

    code        nearest for the present scale and zero point
    e           the part of the error that counts as an outlier: sign(r) * max(|r| - |r|^(p - 1) / beta, 0)
    zero_point  round(mean(code - (w / scale - e)))
    scale       least squares of w - scale * e on the steps

The original keeps the scale and takes any real number for the zero point, which kernels for whole zero points do not
have; rounding it in the end gains nothing over round to nearest. Here both are in the loop, and the best iterate wins.
"""

import numpy as np

from edgewise.quantized import Format
from edgewise_plugins.quantize.blocks import Coded
from edgewise_plugins.quantize.grid import fit
from edgewise_plugins.quantize.nearest import SMALLEST, nearest, round_to

P = np.float32(0.7)
BETA, GROWTH = np.float32(10), np.float32(1.01)
ITERATIONS = 20


def hqq(weights: np.ndarray, form: Format) -> Coded:
    """Weights `[rows, blocks, block_size]` on the grid with the least sum of |error|^p that was met."""
    present = nearest(weights, form)
    best, least, beta = present, _objective(present, weights), BETA
    for _ in range(ITERATIONS):
        present = _step(present, weights, form, beta)
        objective = _objective(present, weights)
        better = objective < least
        least = np.where(better, objective, least)
        best = Coded(*(_where(better, new, old) for new, old in zip(present, best, strict=True)))
        beta *= GROWTH
    return best


def _step(present: Coded, weights: np.ndarray, form: Format, beta: np.float32) -> Coded:
    codes, scales, zero_points = present
    shifted = weights / scales[..., None]
    errors = shifted - codes
    errors += zero_points[..., None]
    outliers = _shrink(errors, beta)
    if not form.symmetric:
        shifted -= outliers
        zero_points = np.clip(np.floor((codes - shifted).mean(axis=-1) + np.float32(0.5)), 0, form.top)
    outliers *= scales[..., None]
    product, square = fit(codes, zero_points, weights - outliers, None)
    some = (square > 0) & (np.abs(product) > SMALLEST)
    scales = np.where(some, product / np.where(some, square, 1), scales)
    return Coded(round_to(weights, scales, zero_points, form.top), scales, zero_points)


def _shrink(errors: np.ndarray, beta: np.float32) -> np.ndarray:
    size = np.maximum(np.abs(errors), np.float32(1e-6))
    return np.asarray(np.copysign(np.maximum(size - size ** (P - 1) / beta, 0), errors))


def _objective(coded: Coded, weights: np.ndarray) -> np.ndarray:
    difference = coded.weights()
    difference -= weights
    return np.asarray((np.abs(difference) ** P).sum(axis=-1))


def _where(condition: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    return np.where(condition if yes.ndim == condition.ndim else condition[..., None], yes, no)
