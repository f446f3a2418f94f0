"""plugins, distill: the work itself, in torch: a teacher's text and answers, then a student that learns."""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from edgewise.calibration.cache import claimed
from edgewise.calibration.fingerprint import array_digest, fingerprint
from edgewise.graph import get_facts
from edgewise.options import record
from edgewise.writer import Progress
from edgewise_plugins.distill.executor import Executor
from edgewise_plugins.distill.objective import depths
from edgewise_plugins.distill.plan import Learn, Precision, Training
from edgewise_plugins.distill.teachers import Present, Teacher, store, written
from edgewise_plugins.distill.train import Run

VERSION = "distill 2"  # of what is computed: part of the names of what is kept
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rewrite(
    teacher: ir.Model, sequences: np.ndarray, training: Training, *, prompt: int, progress: Progress | None
) -> np.ndarray:
    """The text as the teacher writes it, after the first tokens of each sequence."""
    executor, seed = _frozen(teacher, training), training.seed
    key = fingerprint(teacher, VERSION, "written", prompt, seed, executor.precision, array_digest(sequences))
    return written(executor, sequences, key, prompt=prompt, seed=seed, progress=progress)


def learn(
    model: ir.Model,
    teacher: ir.Model,
    sequences: np.ndarray,
    training: Training,
    *,
    what: Learn,
    progress: Progress | None,
) -> tuple[float, float]:
    """Train the model, and keep what it learned if it is better; the held-out KL divergence before and after."""
    said, executor = _teacher(teacher, sequences, training, progress)
    student = Executor(model, learn=what, precision=_precision(training)).to(DEVICE)
    places = depths(student, executor) if executor else []
    key = fingerprint(model, VERSION, what, record(training), fingerprint(teacher), array_digest(sequences))
    with claimed(key) as folder:
        run = Run(student, said, sequences, training, folder, places, progress)
        before = run.held_out_kld()
        after = run.train()
    if after < before:
        student.write_back(model)
    return before, after


def _teacher(
    teacher: ir.Model, sequences: np.ndarray, training: Training, progress: Progress | None
) -> tuple[Teacher, Executor | None]:
    """Who answers; and its executor, where it is in memory."""
    executor = _frozen(teacher, training)
    if not training.top:
        return Present(executor), executor
    options: dict[str, Any] = {"top": training.top, "temperature": training.temperature}
    key = fingerprint(teacher, VERSION, options, executor.precision, array_digest(sequences))
    vocabulary = get_facts(teacher).vocab_size
    return store(executor, sequences, key, vocabulary=vocabulary, progress=progress, **options), None


def _frozen(teacher: ir.Model, training: Training) -> Executor:
    return Executor(teacher, precision=_precision(training)).to(DEVICE).requires_grad_(False)


def _precision(training: Training) -> Precision:
    return training.precision or ("bfloat16" if DEVICE == "cuda" else "float32")
