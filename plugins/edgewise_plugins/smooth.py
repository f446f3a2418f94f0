"""plugins: SmoothQuant (arXiv 2211.10438): inputs with outliers are divided, and the weights multiplied, by

    s = max|X| ^ strength / max|W| ^ (1 - strength)        of each input channel

so that int8 activations have less to span. The model computes what it did. An input whose products, of int8 rows of
weights with int8 activations, would be further off than without scales, on a part of the text, stays as it is.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.errors import OptionError
from edgewise.graph import Linear
from edgewise.integer import Int8Rows
from edgewise.passes import Pass, calibration_of, context_of
from edgewise_plugins.absorb import Pair, column_maxima, pairs, some_rows
from edgewise_plugins.noise import TOKENS, rounded_product

if TYPE_CHECKING:
    from edgewise.calibration.calibration import Calibration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SmoothQuant(Pass):
    """Moves outliers of activations into the weights, for activations of 8 bits; changes no output.

    The scales are folded into norms and into the matrices before, where products in int8 come closer by them. Needs a
    calibration text. Comes before `w8a8` or `quantize`.
    """

    name: ClassVar[str] = "smoothquant"

    strength: float = 0.5  # 0: all that is hard stays in the activations; 1: all of it goes to the weights

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.strength <= 1:
            raise OptionError(f"strength: {self.strength} is not from 0 to 1")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'smoothquant'")
        found = [pair for layer in pairs(model).values() for pair in layer]
        calibration.expect_statistics(model)
        calibration.expect_statistics(model, tokens=TOKENS)
        if context_of(model).dry:
            return ir.passes.PassResult(model, modified=False)
        statistics = calibration.statistics(model)
        scales = [
            smoothing(
                pair.shared(statistics[pair.readers[0].name].max_abs),
                pair.shared(column_maxima([linear.matrix for linear in pair.readers])),
                self.strength,
            )
            for pair in found
        ]
        helped = _helped(model, calibration, found, scales)
        for index in helped:
            found[index].fold(scales[index])
        logger.info("smoothquant: %d of %d inputs scaled", len(helped), len(found))
        if kept := [pair.readers[0].name for index, pair in enumerate(found) if index not in helped]:
            logger.info("smoothquant: int8 is closer without scales for what enters %s", ", ".join(kept))
        return ir.passes.PassResult(model, modified=bool(helped))


def _helped(
    model: ir.Model, calibration: "Calibration", found: Sequence[Pair], scales: Sequence[np.ndarray]
) -> set[int]:
    """The pairs, by their index, whose products come closer with scales; what no token enters is not among them."""
    from edgewise.calibration.walk import Walk  # runs the model: more than a plan needs

    readers = {linear.name: index for index, pair in enumerate(found) for linear in pair.readers}
    closer: dict[int, bool] = {}

    def observe(linears: Sequence[Linear], x: np.ndarray) -> None:
        index = next((readers[linear.name] for linear in linears if linear.name in readers), None)
        if index is not None and index not in closer:
            pair, by_channel = found[index], found[index].spread(scales[index]).astype(np.float32)
            weights = np.concatenate([some_rows(linear.matrix) for linear in pair.readers])
            closer[index] = int8_error(x / by_channel, weights * by_channel) < int8_error(x, weights)

    with scratch() as folder:
        walk = Walk(model, calibration.part(TOKENS), folder=folder, context=calibration.context)
        for layer in walk.layers:
            walk.advance(layer, observe)
    return {index for index, yes in closer.items() if yes}


def int8_error(x: np.ndarray, weights: np.ndarray) -> float:
    """How far products are off where activations `[tokens, in]` and weights `[rows, in]` are rounded as W8A8 does."""
    product = rounded_product(x, weights, Int8Rows.of(columns=x.shape[1]))
    return float(np.square(product - x @ weights.T).sum(dtype=np.float64))


def smoothing(activations: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """Scales from the largest absolute values of each channel; 1 where a channel is all zeros."""
    used = (activations > 0) & (weights > 0)
    x, w = np.where(used, activations, 1).astype(np.float64), np.where(used, weights, 1).astype(np.float64)
    return np.where(used, np.clip(x**strength / w ** (1 - strength), 1e-5, 1e5), 1)
