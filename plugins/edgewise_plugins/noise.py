"""plugins: how far products are off where weights, and activations with them, are rounded to nearest."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.graph import Linear
from edgewise.integer import Int8Rows
from edgewise.passes import Pass
from edgewise.quantized import Format
from edgewise_plugins.absorb import some_rows
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.blocks import in_blocks
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.w8a8 import W8A8

if TYPE_CHECKING:
    from edgewise.calibration.calibration import Calibration

TOKENS = 512  # that products are measured on


def form_after(steps: Sequence[Pass]) -> Callable[[int], Format]:
    """The format, by columns, that the first step which quantizes gives to a matrix; as `quantize` does by itself."""
    step = next((step for step in steps if isinstance(step, W8A8 | Quantize)), Quantize())
    if isinstance(step, W8A8):
        return lambda columns: Int8Rows.of(columns=columns)
    form = Format(step.bits, step.block_size, step.symmetric)
    return lambda columns: form


def rounding_noise(model: ir.Model, calibration: "Calibration", form_of: Callable[[int], Format]) -> float:
    """The mean, over the products of all layers, of |Q(x) Q(W)ᵀ - x Wᵀ|² / |x Wᵀ|², on a part of the text.

    Q rounds weights to the format for so many columns, and activations to int8 in blocks as long. Of large matrices
    some rows are measured.
    """
    from edgewise.calibration.walk import Walk  # runs the model: more than a plan needs

    noise, signal = defaultdict[str, float](float), defaultdict[str, float](float)

    def observe(linears: Sequence[Linear], x: np.ndarray) -> None:
        for linear in linears:
            weights, form = some_rows(linear.matrix), form_of(x.shape[1])
            product = x @ weights.T
            noise[linear.name] += _squares(rounded_product(x, weights, form) - product)
            signal[linear.name] += _squares(product)

    with scratch() as folder:
        walk = Walk(model, calibration.part(TOKENS), folder=folder, context=calibration.context)
        for layer in walk.layers:
            walk.advance(layer, observe)
    shares = [noise[name] / signal[name] for name in noise if signal[name]]
    return math.fsum(shares) / max(1, len(shares))


def rounded_product(x: np.ndarray, weights: np.ndarray, form: Format) -> np.ndarray:
    """What `x [tokens, in]` times `weights [rows, in]`ᵀ becomes."""
    from edgewise.quality.activations import rounded

    floats = nearest(in_blocks(weights, form.block_size), form).weights().reshape(len(weights), -1)
    return np.asarray(rounded(x, form.block_size) @ floats[:, : weights.shape[1]].T)


def _squares(array: np.ndarray) -> float:
    return float(np.square(array).sum(dtype=np.float64))
