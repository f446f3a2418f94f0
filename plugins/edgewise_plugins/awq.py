"""plugins: AWQ (arXiv 2306.00978): weights that meet large inputs are scaled up before they are rounded.

For each input, scales s = mean|X| ^ r are tried for r from 0 to 1, normalised by sqrt(max s * min s). The best is the
one with the least error of the products, of weights W, second moments H of the inputs, and rounding to nearest Q:

    tr(D H Dᵀ)    D = Q(W * s) / s - W
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.passes import Pass, calibration_of, context_of
from edgewise.quantized import Format
from edgewise_plugins.absorb import Pair, pairs, some_rows
from edgewise_plugins.quantize.blocks import in_blocks
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.quantize.rules import Bits, BlockSize

if TYPE_CHECKING:
    from edgewise.calibration.statistics import InputStatistics

logger = logging.getLogger(__name__)

RATIOS = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class Awq(Pass):
    """Scales weights so that those which matter most are rounded best; changes no output by itself.

    `bits`, `block_size` and `symmetric` are those of the `quantize` step that follows. The scales are folded into norms
    and into the matrices before. Needs a calibration text.
    """

    name: ClassVar[str] = "awq"

    bits: Bits = 4
    block_size: BlockSize = 128
    symmetric: bool = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'awq'")
        found = [pair for layer in pairs(model).values() for pair in layer]
        calibration.expect_statistics(model, gram=True)
        if context_of(model).dry:
            return ir.passes.PassResult(model, modified=False)
        form = Format(self.bits, self.block_size, self.symmetric)
        statistics = calibration.statistics(model, gram=True)
        scales = [search(pair, statistics[pair.readers[0].name], form) for pair in found]
        for pair, by_channel in zip(found, scales, strict=True):
            pair.fold(by_channel)
        scaled = sum(bool((by_channel != 1).any()) for by_channel in scales)
        logger.info("awq: %d of %d inputs scaled", scaled, len(found))
        return ir.passes.PassResult(model, modified=bool(scaled))


def search(pair: Pair, inputs: "InputStatistics", form: Format) -> np.ndarray:
    """The scales, one for each channel that may have its own, with the least error; all 1 where none is better."""
    gram, sizes = inputs.gram, pair.shared(inputs.mean_abs)
    assert gram is not None
    weights = np.concatenate([some_rows(linear.matrix) for linear in pair.readers])
    candidates = [scales_for(sizes, ratio) for ratio in RATIOS]
    errors = [rounding_error(weights, pair.spread(scales), gram, form) for scales in candidates]
    return candidates[int(np.argmin(errors))]


def scales_for(sizes: np.ndarray, ratio: float) -> np.ndarray:
    """Mean |X| of each channel to the power of `ratio`, around 1."""
    scales = np.maximum(sizes.astype(np.float64), 1e-4) ** ratio
    return np.asarray(scales / np.sqrt(scales.max() * scales.min()))


def rounding_error(weights: np.ndarray, scales: np.ndarray, gram: np.ndarray, form: Format) -> float:
    """tr(D H Dᵀ), for `[rows, columns]` that are scaled, rounded to nearest and scaled back."""
    factors = scales.astype(np.float32)
    rounded = nearest(in_blocks(weights * factors, form.block_size), form).weights()
    difference = rounded.reshape(len(weights), -1)[:, : weights.shape[1]] / factors - weights
    return float(np.einsum("rk,rk->", difference @ gram, difference))
