"""plugins: SmoothQuant (arXiv 2211.10438): inputs with outliers are divided, and the weights multiplied, by

    s = max|X| ^ strength / max|W| ^ (1 - strength)        of each input channel

so that int8 activations have less to span. The model computes what it did.
"""

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.errors import OptionError
from edgewise.passes import Pass, calibration_of, context_of
from edgewise_plugins.absorb import column_maxima, pairs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SmoothQuant(Pass):
    """Moves outliers of activations into the weights, for activations of 8 bits; changes no output.

    The scales are folded into norms and into the matrices before. Needs a calibration text. Comes before `quantize`.
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
        for pair, by_channel in zip(found, scales, strict=True):
            pair.fold(by_channel)
        logger.info("smoothquant: %d inputs scaled", len(found))
        return ir.passes.PassResult(model, modified=bool(found))


def smoothing(activations: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """Scales from the largest absolute values of each channel; 1 where a channel is all zeros."""
    used = (activations > 0) & (weights > 0)
    x, w = np.where(used, activations, 1).astype(np.float64), np.where(used, weights, 1).astype(np.float64)
    return np.where(used, np.clip(x**strength / w ** (1 - strength), 1e-5, 1e5), 1)
