"""plugins, quantize: round to nearest: every weight becomes the closest value that its block can hold.

asymmetric   the codes span the block and zero: scale = (max - min) / top, zero_point = round(-min / scale)
symmetric    the weight furthest from zero, with its sign, is the lowest code: scale = that weight / -middle.
             The scale is signed, and all codes are used (llama.cpp's Q4_0, ONNX Runtime's default quantizer).

Halves round up, codes are clipped to 0..top. A scale is never smaller than the smallest normal float32, so a block of
zeros is well defined: its codes are the zero point, its weights exactly zero.
"""

import numpy as np

from edgewise.errors import CheckpointError
from edgewise.quantized import Block, Format, join, pack
from edgewise.tensors import Streamed

CHUNK = 1 << 16  # weights at a time: 256 KiB of float32 and its result stay in a core's own cache
SMALLEST = np.finfo(np.float32).tiny
HALF = np.float32(0.5)


def quantize_rows(matrix: Streamed, form: Format, start: int, stop: int) -> Block:
    """Rows start to stop, the same whatever the rows around them. Raises CheckpointError for NaN and infinity."""
    step = max(1, CHUNK // matrix.dims[1])
    return join([_quantize(matrix, form, a, min(a + step, stop)) for a in range(start, stop, step)])


def _quantize(matrix: Streamed, form: Format, start: int, stop: int) -> Block:
    weights = in_blocks(matrix.read(start, stop), form.block_size)
    low, high = np.minimum(extremes(weights, np.minimum), 0), np.maximum(extremes(weights, np.maximum), 0)
    with np.errstate(over="ignore", invalid="ignore"):
        scales, zero_points = parameters(low, high, form)
    finite = np.isfinite(scales)
    if not finite.all():
        row = start + int(finite.all(axis=1).argmin())
        raise CheckpointError(f"weight '{matrix.name}', row {row}: not a number, infinite, or too large for float32")
    codes = nearest(weights, scales, form.middle if zero_points is None else zero_points, form.top)
    zeros = None if zero_points is None else pack(zero_points.astype(np.uint8), form.bits)
    return Block(pack(codes, form.bits), scales, zeros)


def in_blocks(rows: np.ndarray, block_size: int) -> np.ndarray:
    """Rows as float32 `[rows, blocks, block_size]`, the last block filled up with zeros."""
    rows = rows.astype(np.float32, copy=False)
    if spare := -rows.shape[1] % block_size:
        rows = np.pad(rows, ((0, 0), (0, spare)))
    return rows.reshape(len(rows), -1, block_size)


def extremes(weights: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """The minimum or maximum of each block; `reduceat` takes a third of the time that a reduction of an axis takes."""
    starts = np.arange(0, weights.size, weights.shape[-1])
    return np.asarray(extreme.reduceat(weights.reshape(-1), starts)).reshape(weights.shape[:-1])


def parameters(low: np.ndarray, high: np.ndarray, form: Format) -> tuple[np.ndarray, np.ndarray | None]:
    """Scales and zero points (as floats; symmetric: None) of blocks whose weights, and zero, lie in low..high."""
    if form.symmetric:
        scales = np.where(high > -low, high, low) / np.float32(-form.middle)
        scales[np.abs(scales) < SMALLEST] = SMALLEST
        return scales, None
    scales = np.maximum((high - low) / np.float32(form.top), SMALLEST)
    return scales, np.minimum(np.floor(-low / scales + HALF), np.float32(form.top))


def nearest(weights: np.ndarray, scales: np.ndarray, zero_points: np.ndarray | int, top: int) -> np.ndarray:
    """The codes, uint8, of weights in blocks."""
    codes = weights * (1 / scales)[..., None]
    codes += np.expand_dims(np.float32(zero_points) + HALF, -1)
    np.clip(codes, 0, top, out=codes)
    return codes.astype(np.uint8)  # drops the fraction: with the half added, that is to the nearest
