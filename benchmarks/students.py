"""Students of examples/pycoder: what is left of it, in what way it learns, and for how many steps."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from shapes import DEMO

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import RecipeError
from edgewise.exporters import export_graph
from edgewise.passes import BuildContext, Pass, context_of
from edgewise.prepare import open_checkpoint
from edgewise.steps import apply
from edgewise.tensors import constant, streamed
from edgewise.text.tokenizer import Tokenizer
from edgewise_plugins.distill.learn import Distill
from edgewise_plugins.distill.plan import Training

TOKENS, LENGTH = 32_768, 512  # of the calibration text
SEQUENCE, BATCH, TRIED = 256, 8, 6

Steps = tuple[Pass, ...]

WAYS: Mapping[str, Mapping[str, Any]] = {  # options of `distill`, and under "training" of what it minimises
    "gently": {"training": {"rate": 2e-5, "precision": "float32"}},
    "scores": {"training": {"rate": 1e-3}},
    "scales": {"learn": "scales", "training": {"rate": 1e-3}},
    "codes": {"training": {"rate": 1e-4}},
    "own text": {"training": {"rate": 1e-3, "sampled": 0.5, "objective": "reverse_kl"}},
}


@dataclass(frozen=True)
class Forget(Pass):
    """Random weights in the place of those that are there: the same model, before any training."""

    name: ClassVar[str] = "forget"

    seed: int = 0

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        rng = np.random.default_rng(self.seed)
        for name, value in model.graph.initializers.items():
            shape = streamed(value.const_value).dims
            if name.endswith(".weight"):
                noise = rng.normal(0, 0.02, shape) if len(shape) == 2 else np.ones(shape)
                value.const_value = constant(noise.astype(np.float32), name=name)
        return ir.passes.PassResult(model, modified=True)


@cache
def teacher() -> ir.Model:
    return export_graph(open_checkpoint(DEMO))


def after(steps: Steps) -> ir.Model:
    """The canonical graph after these passes."""
    calibration = Calibration(CalibrationText(DEMO / "calibration.txt", TOKENS, LENGTH), Tokenizer.load(DEMO))
    context = BuildContext(calibration=calibration, reference=teacher().clone())
    return apply(teacher().clone(), steps, context, error=RecipeError)


@dataclass(frozen=True)
class School:
    """A text, and the minutes of the processor that each student gets."""

    text: Path
    tokens: int
    minutes: float

    def learning(self, model: ir.Model, way: str, noted: Path) -> Distill:
        """The pass by which this model learns, for as many steps as there is time; the number is noted in a file, so
        that all who learn that way take as many, and one that was stopped goes on.
        """
        options = dict(WAYS[way])
        training = Training(**{"batch": BATCH, "held_out": 0.02, "precision": "bfloat16", **options.pop("training")})
        options = {"text": str(self.text), "tokens": self.tokens, "length": SEQUENCE, **options}
        tried = Distill(training=replace(training, steps=TRIED), **options)
        if not noted.exists():
            noted.write_text(str(max(TRIED, round(60 * self.minutes / _seconds(tried, model)))), "utf-8")
        count = int(noted.read_text("utf-8"))
        return replace(tried, training=replace(training, steps=count, evaluate=max(1, count // 10)))


def _seconds(tried: Distill, model: ir.Model) -> float:
    """Of the processor, for a step."""
    seconds: list[float] = []

    def note(stage: str, done: int, total: int) -> None:
        if stage.startswith("distill"):
            seconds.append(time.process_time())

    context, trial = context_of(model), model.clone()
    assert context.calibration
    trial.meta["edgewise"] = replace(context, calibration=replace(context.calibration, progress=note))
    tried(trial)
    return statistics.median(np.diff(seconds[:-1]))  # after the last one it looks at what is held out
