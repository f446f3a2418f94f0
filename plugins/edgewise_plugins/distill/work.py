"""plugins, distill: the work itself, in torch: a teacher's text and answers, then a student that learns."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from edgewise.calibration.cache import claimed
from edgewise.calibration.fingerprint import array_digest, fingerprint
from edgewise.errors import OptionError
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


@dataclass(frozen=True)
class Learned:
    """What a student is on held-out text: the KL divergence before and after, and as drafts for its teacher, the shares
    of its most likely tokens, and of drawn ones, that are accepted.
    """

    before: float
    after: float
    likeliest: float
    drawn: float

    @property
    def better(self) -> bool:
        """Whether learning was worth it."""
        return self.after < self.before

    def sentence(self) -> str:
        """The figures, as a card says them."""
        return (
            f"distilled: on held-out text the KL divergence from the checkpoint was {self.before:.3g} nats a token, "
            f"and is {self.after:.3g} after this step; as a draft for it, {self.likeliest:.1%} of the most likely "
            f"tokens are accepted, and {self.drawn:.1%} of drawn ones"
        )


def free_on_gpu() -> int | None:
    """Bytes that are free on the GPU that computes; None where there is none."""
    return int(torch.cuda.mem_get_info()[0]) if DEVICE == "cuda" else None


@contextmanager
def less_than_needed(advice: str) -> Iterator[None]:
    """Turns what CUDA says of too little memory into one line."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise OptionError(f"distill: the GPU's memory does not suffice; {advice}") from error


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
) -> Learned:
    """Train the model, and keep what it learned if it is better."""
    said, executor = _teacher(teacher, sequences, training, progress)
    student = Executor(model, learn=what, precision=_precision(training)).to(DEVICE)
    places = depths(student, executor) if executor else []
    key = fingerprint(model, VERSION, what, record(training), fingerprint(teacher), array_digest(sequences))
    with claimed(key) as folder:
        run = Run(student, said, sequences, training, folder, places, progress)
        before = run.held_out_kld()
        after = run.train()
        learned = Learned(before, after, *run.accepted())
    if learned.better:
        student.write_back(model)
    return learned


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
