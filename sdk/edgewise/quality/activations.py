"""sdk, quality: what int8 activations cost each product: a target that multiplies integers rounds what enters, too.

ONNX Runtime's MatMulNBits at accuracy level 4 stores the activations of a token in blocks as long as those of the
weights, each with the scale largest / 127. Where a few channels are much larger than the others, the others vanish.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear
from edgewise.quantized import BlockQuantized
from edgewise.writer import Progress


def activation_errors(
    model: ir.Model, sequences: np.ndarray, *, context: int | None = None, progress: Progress | None = None
) -> dict[str, float]:
    """How wrong each product with a quantized matrix becomes, by the name of the weight, the worst first.

    It is |W (round(x) - x)| / |W x| over all tokens: 0.01 is usual, near 1 the product is noise. sequences: int64
    `[n, length]`; a few hundred tokens will do.
    """
    sums: dict[str, np.ndarray] = {}

    def observe(group: Sequence[Linear], x: np.ndarray) -> None:
        for linear in group:
            matrix = linear.matrix
            if isinstance(matrix, BlockQuantized):
                sums[linear.name] = sums.get(linear.name, np.zeros(2)) + _squares(matrix, x)

    with scratch() as folder:
        walk = Walk(model, sequences, folder=folder, context=context, progress=progress)
        for layer in walk.layers:
            walk.advance(layer, observe)
        walk.observe(walk.head, observe)
    errors = {name: math.sqrt(wrong / right) if right else 0.0 for name, (wrong, right) in sums.items()}
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def rounded(x: np.ndarray, block_size: int) -> np.ndarray:
    """Activations, float32 `[tokens, features]`, as they come out of int8, each token in blocks of so many."""
    tokens, features = x.shape
    blocks = np.pad(x, ((0, 0), (0, -features % block_size))).reshape(tokens, -1, block_size)
    scales = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(127)
    steps = np.rint(blocks / np.where(scales, scales, 1))
    return np.asarray((steps * scales).reshape(tokens, -1)[:, :features])


def _squares(matrix: BlockQuantized, x: np.ndarray) -> np.ndarray:
    """Squares of the product's error, and of the product, summed over tokens and rows."""
    error = rounded(x, matrix.form.block_size) - x
    found = np.zeros(2)
    for start, stop in matrix.blocks():
        rows = matrix.read(start, stop).T
        found += [float(np.square(each @ rows).sum(dtype=np.float64)) for each in (error, x)]
    return found
