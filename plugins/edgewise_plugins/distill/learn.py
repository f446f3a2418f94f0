"""plugins, distill: the pass: what earlier steps made of a model learns from the checkpoint that it was."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import claimed
from edgewise.calibration.calibration import Calibration
from edgewise.calibration.fingerprint import array_digest, fingerprint
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import GraphError, OptionError
from edgewise.extras import extras
from edgewise.graph import get_facts, linears
from edgewise.memory import available_memory
from edgewise.options import record
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.quantized import BlockQuantized
from edgewise.sizes import sizes_of, total
from edgewise_plugins.distill.plan import Training

logger = logging.getLogger(__name__)

COPIES = 5  # of a parameter while it is trained: itself, its gradient, two moments, the best so far
ACTIVATIONS = 24  # floats kept for each hidden feature, layer and token until the gradient is known; measured
SCORES = 6  # float copies of the scores of a batch


@dataclass(frozen=True)
class Distill(Pass):
    """Trains the weights towards the scores of the checkpoint: what pruning lost is learned again.

    It learns from `text`, `tokens` of it in sequences of `length`; without one, from the calibration text. What is
    minimised, for how long and at which rates, says `training`. It runs on a GPU where torch finds one. Needs torch
    (extra `distill`) and a calibration text; comes before `quantize`.
    """

    name: ClassVar[str] = "distill"

    text: str = ""
    tokens: int = 1_000_000
    length: int = 256
    training: Training = field(default_factory=Training)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration, teacher = calibration_of(model, needed_by="pass 'distill'"), context_of(model).reference
        if teacher is None:
            raise GraphError("pass 'distill' has no teacher: it is a step of a recipe, in a build")
        _check(model, teacher)
        with extras():
            import torch  # noqa: F401
        if context_of(model).dry:
            return ir.passes.PassResult(model, modified=False)
        sequences = self._sequences(calibration, get_facts(teacher).context_length)
        self._refuse_what_does_not_fit(model, teacher, sequences)
        key = fingerprint(model, "distill", record(self), fingerprint(teacher), array_digest(sequences))
        with claimed(key) as folder:
            self._learn(model, teacher, sequences, folder, calibration)
        return ir.passes.PassResult(model, modified=True)

    def _learn(
        self, model: ir.Model, teacher: ir.Model, sequences: np.ndarray, folder: Path, calibration: Calibration
    ) -> None:
        from edgewise_plugins.distill.executor import Executor
        from edgewise_plugins.distill.train import Run

        student = Executor(model)
        run = Run(student, Executor(teacher), sequences, self.training, folder, calibration.progress)
        before = run.held_out_kld()
        after = run.train()
        logger.info("distill: the KL divergence on held-out text was %.4f, and is %.4f", before, after)
        if after < before:
            student.write_back(model)
        else:
            logger.warning("distill: training made it no better; the weights are left as they were")

    def _sequences(self, calibration: Calibration, longest: int) -> np.ndarray:
        calibration.used = True
        if not self.text:
            return calibration.sequences
        text = CalibrationText(Path(self.text), self.tokens, min(self.length, longest), self.training.seed)
        return text.sequences(calibration.tokenizer)

    def _refuse_what_does_not_fit(self, model: ir.Model, teacher: ir.Model, sequences: np.ndarray) -> None:
        facts, tokens = get_facts(model), min(self.training.batch, len(sequences)) * sequences.shape[1]
        floats = COPIES * total(sizes_of(model)).parameters + total(sizes_of(teacher)).parameters
        floats += tokens * (ACTIVATIONS * facts.hidden_size * facts.layers + SCORES * facts.vocab_size)
        available = available_memory()
        logger.info("distill: about %.2f GB of memory", 4 * floats / 1e9)
        if available is not None and 4 * floats > available:
            raise OptionError(
                f"distillation takes about {4 * floats / 1e9:.2f} GB of memory, and {available / 1e9:.2f} GB are "
                "available; ask for a smaller batch (and accumulate more), or shorter sequences"
            )


def _check(model: ir.Model, teacher: ir.Model) -> None:
    ours, theirs = get_facts(model).vocab_size, get_facts(teacher).vocab_size
    if ours != theirs:
        raise GraphError(f"the student has a vocabulary of {ours:,}, its teacher of {theirs:,}: nothing to compare")
    for linear in linears(model):
        if isinstance(linear.matrix, BlockQuantized):
            raise GraphError(f"'{linear.name}' is quantized already ({linear.matrix.form}): 'distill' comes before")
