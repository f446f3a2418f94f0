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
MINUS_ZERO = np.uint32(1 << 31)


def nearest(weights: np.ndarray, form: Format) -> Coded:
    """Weights `[rows, blocks, block_size]` on the grid that spans their block."""
    scales, zero_points = parameters(*ranges(weights), form)
    return Coded(round_to(weights, scales, zero_points, form.top), scales, zero_points)


def ranges(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the weights of each block, and zero, lie: `[rows, blocks]` from and to; both NaN where one is NaN.

    By the bits, whose maxima take a third of the time: the largest signed integer is the largest positive float, the
    largest unsigned one the negative float furthest from zero.
    """
    starts, bits = np.arange(0, weights.size, weights.shape[-1]), weights.reshape(-1)
    signed = np.maximum(np.maximum.reduceat(bits.view(np.int32), starts), 0)
    unsigned = np.maximum(np.maximum.reduceat(bits.view(np.uint32), starts), MINUS_ZERO)
    low, high = (found.view(np.float32).reshape(weights.shape[:-1]) for found in (unsigned, signed))
    return low + 0 * high, high + 0 * low


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
