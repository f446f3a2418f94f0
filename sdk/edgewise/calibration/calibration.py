"""sdk, calibration: what a build that was given a text offers to its passes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.calibration.collect import collect
from edgewise.calibration.statistics import Statistics
from edgewise.calibration.texts import CalibrationText
from edgewise.calibration.walk import Walk
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import Progress


@dataclass(frozen=True)
class Calibration:
    """A text in the tokens of the checkpoint, and what a model does with it."""

    text: CalibrationText
    tokenizer: Tokenizer
    context: int | None = None  # of the session that is to run the model
    progress: Progress | None = None

    @cached_property
    def sequences(self) -> np.ndarray:
        """int64 `[n, length]`."""
        return self.text.sequences(self.tokenizer)

    def statistics(self, model: ir.Model, *, gram: bool = False) -> Statistics:
        """The statistics of the model as it is now, from the cache if they are there."""
        return collect(model, self.sequences, gram=gram, context=self.context, progress=self.progress)

    @contextmanager
    def walk(self, model: ir.Model) -> Iterator[Walk]:
        """A walk over the model's layers, for a pass that changes weights on the way."""
        with scratch() as folder:
            yield Walk(model, self.sequences, folder=folder, context=self.context, progress=self.progress)
