"""plugins, distill: the pass: what earlier steps made of a model learns from the checkpoint that it was."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import cache_folder
from edgewise.calibration.calibration import Calibration
from edgewise.calibration.plan import Cost
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import GraphError, OptionError
from edgewise.extras import require
from edgewise.graph import get_facts, linears, remark
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.quantized import BlockQuantized
from edgewise_plugins.distill.plan import Learn, Training

logger = logging.getLogger(__name__)

LESS = "a smaller batch (accumulate more), shorter sequences, or `top`, take less"


@dataclass(frozen=True)
class Distill(Pass):
    """Trains the weights towards the scores of the checkpoint: what pruning or rounding lost is learned again.

    It learns from `text`, `tokens` of it in sequences of `length`; without one, from the calibration text. With
    `prompt`, the checkpoint first writes that text anew, from so many tokens of each sequence on. What is minimised,
    for how long and at which rates, says `training`. It runs on a GPU where torch finds one.

    After `quantize`, the weights learn as they are stored (codes by straight-through rounding, and their scales), in
    the format that they have; with `learn = "scales"` the scales alone. Needs torch (extra `distill`) and a calibration
    text.
    """

    name: ClassVar[str] = "distill"

    text: str = ""
    tokens: int = 1_000_000
    length: int = 256
    prompt: int = 0
    learn: Learn = "weights"
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt < 0:
            raise OptionError(f"prompt: {self.prompt} is no number of tokens")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration, teacher = calibration_of(model, needed_by="pass 'distill'"), context_of(model).reference
        if teacher is None:
            raise GraphError("pass 'distill' has no teacher: it is a step of a recipe, in a build")
        self._check(model, teacher)
        require("torch")
        sequences = self._sequences(calibration, get_facts(teacher).context_length)
        stages = self._costs(model, teacher, sequences)
        for cost in stages.values():
            calibration.expect(cost)
        if context_of(model).dry:
            return ir.passes.PassResult(model, modified=False)
        from edgewise_plugins.distill.work import free_on_gpu, learn, less_than_needed, rewrite

        refuse_what_does_not_fit(stages, free_on_gpu())
        training, progress = self.training, calibration.progress
        with less_than_needed(LESS):
            if self.prompt:
                sequences = rewrite(teacher, sequences, training, prompt=self.prompt, progress=progress)
            learned = learn(model, teacher, sequences, training, what=self.learn, progress=progress)
        if learned.better:
            said = learned.sentence()
            logger.info("%s", said)
            remark(model, "distilled", said)
        else:
            logger.warning("distill: training made it no better; the weights are left as they were")
        return ir.passes.PassResult(model, modified=learned.better)

    def _sequences(self, calibration: Calibration, longest: int) -> np.ndarray:
        calibration.used = True
        found = calibration.sequences
        if self.text:
            text = CalibrationText(Path(self.text), self.tokens, min(self.length, longest), self.training.seed)
            found = text.sequences(calibration.tokenizer)
        if len(found) < 2:
            raise OptionError(f"{found.size:,} tokens are one sequence: some must be held out; give more text")
        if self.prompt >= found.shape[1]:
            raise OptionError(f"prompt: {self.prompt} tokens leave nothing to write in sequences of {found.shape[1]}")
        return found

    def _costs(self, model: ir.Model, teacher: ir.Model, sequences: np.ndarray) -> Mapping[str, Cost]:
        from edgewise_plugins.distill.cost import costs

        return costs(model, teacher, sequences.shape, self.training, prompt=self.prompt, what=self.learn)

    def _check(self, model: ir.Model, teacher: ir.Model) -> None:
        ours, theirs = get_facts(model), get_facts(teacher)
        if ours.vocab_size != theirs.vocab_size:
            raise GraphError(
                f"the student has a vocabulary of {ours.vocab_size:,}, its teacher of {theirs.vocab_size:,}: "
                "nothing to compare"
            )
        if self.training.takes_hidden and ours.hidden_size != theirs.hidden_size:
            raise GraphError(
                f"hidden states of {ours.hidden_size:,} numbers cannot be held against the teacher's of "
                f"{theirs.hidden_size:,}: leave out 'hidden' and objective 'blocks'"
            )
        if self.training.top > theirs.vocab_size - 1:
            raise OptionError(f"top: {self.training.top} is not below the vocabulary of {theirs.vocab_size:,}")
        if self.learn == "scales" and not any(isinstance(linear.matrix, BlockQuantized) for linear in linears(model)):
            raise GraphError("learn = 'scales': nothing is quantized yet; put the step 'quantize' before it")


def refuse_what_does_not_fit(stages: Mapping[str, Cost], gpu: int | None) -> None:
    """Raises OptionError where a stage takes more than there is; `gpu` are the bytes that are free on it, where it is
    what computes. This machine's memory then holds what goes to the disk.
    """
    for stage, cost in stages.items():
        logger.info("%s: about %.2f GB of memory, %.2f GB of disk", stage, cost.memory / 1e9, cost.disk / 1e9)
        if gpu is not None and cost.memory > gpu:
            raise OptionError(
                f"{stage} takes about {cost.memory / 1e9:.2f} GB of the GPU's memory, and {gpu / 1e9:.2f} GB are free; "
                f"{LESS}; without a GPU: CUDA_VISIBLE_DEVICES="
            )
        here = cost if gpu is None else replace(cost, memory=cost.disk)
        here.refuse_what_does_not_fit(
            cache_folder(), less_memory=LESS, less_disk="fewer tokens, or a smaller `top`, take less"
        )
