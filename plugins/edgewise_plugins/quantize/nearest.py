"""plugins, quantize: round to nearest: every weight becomes the closest value that its block can hold.

asymmetric   the codes span the block and zero: scale = (max - min) / top, zero_point = round(-min / scale)
symmetric    the weight furthest from zero, with its sign, is the lowest code: scale = that weight / -middle.
             The scale is signed, and all codes are used (llama.cpp's Q4_0, ONNX Runtime's default quantizer).

Halves round up, codes are clipped to 0..top. A scale is never smaller than the smallest normal float32, so a block of
zeros is well defined: its codes are the zero point, its weights exactly zero.
"""

import numpy as np

from edgewise.quantized import Format
from edgewise_plugins.quantize.blocks import Coded

SMALLEST = np.finfo(np.float32).tiny
HALF = np.float32(0.5)


def nearest(weights: np.ndarray, form: Format) -> Coded:
    """Weights `[rows, blocks, block_size]` on the grid that spans their block."""
    scales, zero_points = parameters(*ranges(weights), form)
    return Coded(round_to(weights, scales, zero_points, form.top), scales, zero_points)


def ranges(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the weights of each block, and zero, lie: `[rows, blocks]` from and to."""
    return np.minimum(_extremes(weights, np.minimum), 0), np.maximum(_extremes(weights, np.maximum), 0)


def _extremes(weights: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """The minimum or maximum of each block; `reduceat` takes a third of the time that a reduction of an axis takes."""
    starts = np.arange(0, weights.size, weights.shape[-1])
    return np.asarray(extreme.reduceat(weights.reshape(-1), starts)).reshape(weights.shape[:-1])


def parameters(low: np.ndarray, high: np.ndarray, form: Format) -> tuple[np.ndarray, np.ndarray]:
    """Scales and zero points, as floats, of blocks that span low to high."""
    if form.symmetric:
        scales = np.where(high > -low, high, low) / np.float32(-form.middle)
        scales[np.abs(scales) < SMALLEST] = SMALLEST
        return scales, np.full_like(scales, form.middle)
    scales = np.maximum((high - low) / np.float32(form.top), SMALLEST)
    return scales, np.minimum(np.floor(-low / scales + HALF), np.float32(form.top))


def round_to(weights: np.ndarray, scales: np.ndarray, zero_points: np.ndarray, top: int) -> np.ndarray:
    """The codes, uint8, of weights in blocks, for scales and zero points that are given."""
    codes = weights * (1 / scales)[..., None]
    codes += (zero_points + HALF)[..., None]
    np.clip(codes, 0, top, out=codes)
    return codes.astype(np.uint8)  # drops the fraction: with the half added, that is to the nearest
