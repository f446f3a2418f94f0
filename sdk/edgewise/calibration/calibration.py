"""sdk, calibration: what a build that was given a text offers to its passes."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.calibration.collect import collect
from edgewise.calibration.plan import CalibrationPlan, Cost, plan_statistics
from edgewise.calibration.statistics import Statistics
from edgewise.calibration.texts import CalibrationText
from edgewise.calibration.walk import Walk
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import Progress


@dataclass
class Calibration:
    """A text in the tokens of the checkpoint, and what a model does with it."""

    text: CalibrationText
    tokenizer: Tokenizer
    context: int | None = None  # of the session that is to run the model
    progress: Progress | None = None
    used: bool = False  # by any pass so far
    costs: list[Cost] = field(default_factory=list)  # of the passes so far, as they expect them

    @cached_property
    def sequences(self) -> np.ndarray:
        """int64 `[n, length]`."""
        return self.text.sequences(self.tokenizer)

    def part(self, tokens: int) -> np.ndarray:
        """The first sequences, one at least, of about so many tokens: for what need not see the whole text."""
        self.used = True
        return self.sequences[: self.shape(tokens)[0]]

    def read_with(self, tokenizer: Tokenizer) -> None:
        """Read the text in other tokens from now on: those that a pass has left."""
        self.tokenizer = tokenizer
        self.__dict__.pop("sequences", None)

    def expect(self, cost: Cost) -> None:
        """Take note of what a pass is going to take, for the plan of the build."""
        self.costs.append(cost)

    def expect_statistics(self, model: ir.Model, *, gram: bool = False, tokens: int | None = None) -> None:
        """Take note of what `statistics` takes; of a `part` of so many tokens, if they are given."""
        self.expect(plan_statistics(model, self.shape(tokens), gram=gram).cost)

    def plan(self, model: ir.Model) -> CalibrationPlan:
        """What all passes take; where none has said it, statistics with whole second moments."""
        costs = self.costs or [plan_statistics(model, self.sequences.shape, gram=True).cost]
        return CalibrationPlan(*self.shape(), tuple(costs))

    def statistics(self, model: ir.Model, *, gram: bool = False) -> Statistics:
        """The statistics of the model as it is now, from the cache if they are there."""
        self.used = True
        return collect(model, self.sequences, gram=gram, context=self.context, progress=self.progress)

    def shape(self, tokens: int | None = None) -> tuple[int, int]:
        """How many sequences of which length; those of `part`, where tokens are given."""
        count, length = self.sequences.shape
        return (count if tokens is None else min(count, max(1, tokens // length))), length

    @contextmanager
    def walk(
        self, model: ir.Model, *, folder: Path | None = None, start: int = 0, keep: bool = False
    ) -> Iterator[Walk]:
        """A walk over the model's layers, for a pass that changes weights on the way.

        With a `folder` the hidden states stay there: another walk may `start` at the layer that this one has reached.
        """
        self.used = True
        plan = plan_statistics(model, self.sequences.shape, gram=True)
        with nullcontext(folder) if folder else scratch() as place:
            place.mkdir(exist_ok=True)
            plan.refuse_what_does_not_fit(place)
            yield Walk(
                model,
                self.sequences,
                folder=place,
                context=self.context,
                start=start,
                keep=keep,
                progress=self.progress,
            )
