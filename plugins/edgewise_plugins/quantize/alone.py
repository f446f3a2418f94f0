"""plugins, quantize: one matrix of a float model as GPTQ would make it, all others being as they are."""

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import cache_folder
from edgewise.calibration.statistics import InputStatistics, Statistics
from edgewise.graph import Linear, get_facts
from edgewise.quantized import BlockQuantized, Format
from edgewise_plugins.quantize.factor import factorize
from edgewise_plugins.quantize.gptq import Moments
from edgewise_plugins.quantize.observed import TOKENS_PER_FEATURE
from edgewise_plugins.quantize.sequential import TIED_DAMPING, by_gptq
from edgewise_plugins.quantize.spill import temporary
from edgewise_plugins.quantize.tied import final_gains, with_embedding


class Alone:
    """Matrices by GPTQ on the statistics of the float model, on disk once they are computed."""

    def __init__(self, model: ir.Model, statistics: Statistics, damping: float) -> None:
        self.model, self.statistics, self.damping = model, statistics, damping
        self._spill = temporary(cache_folder())
        self._last: tuple[InputStatistics, Moments] | None = None

    def can(self, linear: Linear) -> bool:
        """Whether its inputs were measured, on tokens enough."""
        inputs = self.statistics.get(linear.name)
        return inputs is not None and inputs.tokens >= TOKENS_PER_FEATURE * linear.matrix.dims[1]

    def quantized(self, linear: Linear, form: Format) -> BlockQuantized:
        return by_gptq(linear, self._moments(linear), form, self._spill)[0]

    def _moments(self, linear: Linear) -> Moments:
        inputs = self.statistics[linear.name]
        if self._last is None or self._last[0] is not inputs:
            gram, damping = inputs.gram, self.damping
            assert gram is not None
            if linear.role == "lm_head" and get_facts(self.model).tied:
                gram, damping = (
                    with_embedding(gram, linear.matrix, final_gains(self.model, len(gram))),
                    damping * TIED_DAMPING,
                )
            self._last = inputs, Moments(np.asarray(gram), factorize(gram, damping))
        return self._last[1]
