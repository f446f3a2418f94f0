"""sdk, quality: what int8 activations cost each product: a target that multiplies integers rounds what enters, too.

ONNX Runtime's MatMulNBits at accuracy level 4 stores the activations of a token in blocks as long as those of the
weights, each with the scale largest / 127. Where a few channels are much larger than the others, the others vanish.
"""

import math
from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear
from edgewise.quantized import BlockQuantized
from edgewise.writer import Progress


def activation_errors(
    model: ir.Model,
    sequences: np.ndarray,
    *,
    names: Collection[str] | None = None,
    block_size: int | None = None,
    context: int | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """How wrong each product with a quantized matrix becomes, by the name of the weight, the worst first.

    It is |W (round(x) - x)| / |W (x - mean x)| over all tokens, the noise in what tells one token from another: 0.01
    is usual, near 1 the product is noise. What is the same for all tokens, as a channel of massive activations can be,
    does not hide it. sequences: int64 `[n, length]`; a few hundred tokens will do. names: the weights to measure; None:
    all. block_size: that activations are rounded in; None: that of the weights.
    """
    sums: dict[str, _Sums] = {}

    def observe(group: Sequence[Linear], x: np.ndarray) -> None:
        for linear in group:
            matrix = linear.matrix
            if isinstance(matrix, BlockQuantized) and (names is None or linear.name in names):
                sums.setdefault(linear.name, _Sums(matrix)).add(x, block_size or matrix.form.block_size)

    with scratch() as folder:
        walk = Walk(model, sequences, folder=folder, context=context, progress=progress)
        for layer in walk.layers:
            walk.advance(layer, observe)
        walk.observe(walk.head, observe)
    errors = dict.fromkeys(names or (), 0.0)  # of experts that no token is given to
    errors |= {name: each.error for name, each in sums.items()}
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def rounded(x: np.ndarray, block_size: int) -> np.ndarray:
    """Activations, float32 `[tokens, features]`, as they come out of int8, each token in blocks of so many."""
    tokens, features = x.shape
    blocks = np.pad(x, ((0, 0), (0, -features % block_size))).reshape(tokens, -1, block_size)
    scales = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(127)
    steps = np.rint(blocks / np.where(scales, scales, 1))
    return np.asarray((steps * scales).reshape(tokens, -1)[:, :features])


class _Sums:
    """Over the tokens so far: the squares of a product's error, and the product's own sum and squares, by row."""

    def __init__(self, matrix: BlockQuantized) -> None:
        self.matrix, self.tokens, self.wrong = matrix, 0, 0.0
        self.total, self.squares = np.zeros((2, matrix.dims[0]))

    def add(self, x: np.ndarray, block_size: int) -> None:
        noise = rounded(x, block_size) - x
        for start, stop in self.matrix.blocks():
            weights = self.matrix.read(start, stop).T
            product = x @ weights  # [tokens, rows]
            self.total[start:stop] += product.sum(axis=0, dtype=np.float64)
            self.squares[start:stop] += np.square(product).sum(axis=0, dtype=np.float64)
            self.wrong += float(np.square(noise @ weights).sum(dtype=np.float64))
        self.tokens += len(x)

    @property
    def error(self) -> float:
        varying = float(np.maximum(self.squares - np.square(self.total) / self.tokens, 0).sum())
        return math.sqrt(self.wrong / varying) if varying else 0.0
