"""plugins, distill: the loop: a student learns from a teacher, step by step; one that was killed goes on where it was.

Everything that a step depends on is in its number and in the state that is kept: so an interrupted run ends with the
same bits as one that was not, on a CPU with as many threads.
"""

import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from edgewise.writer import Progress
from edgewise_plugins.distill.batches import Batches
from edgewise_plugins.distill.executor import Executor
from edgewise_plugins.distill.objective import Objective
from edgewise_plugins.distill.plan import Training
from edgewise_plugins.distill.teachers import Teacher

logger = logging.getLogger(__name__)

Tensor = torch.Tensor

EVERY_S = 60.0  # between states that are kept
FILE = "state.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Run:
    """A student and its teacher, which have one vocabulary, on sequences of tokens `[n, length]`.

    folder: where the state is kept, and looked for.
    """

    student: Executor
    teacher: Teacher
    sequences: np.ndarray
    training: Training
    folder: Path
    depths: list[int] = field(default_factory=list)
    progress: Progress | None = None
    step: int = 0
    best: float = float("inf")  # the KL divergence on what is held out
    waiting: int = 0  # evaluations since then
    _best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = next(self.student.parameters()).device.type
        self.objective = Objective(self.student, self.teacher, self.training, self.depths)
        self.batches = Batches(self.sequences, self.training, self.device)
        self.parameters = dict(self.student.weights())
        matrices = [parameter for parameter in self.parameters.values() if parameter.dim() == 2]
        others = [parameter for parameter in self.parameters.values() if parameter.dim() != 2]
        groups = [
            {"params": matrices, "weight_decay": self.training.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.95), fused=True)

    def train(self) -> float:
        """Go on from the state that is kept to the end; the KL divergence on what is held out then, the best."""
        self._resume()
        started, first, saved = time.monotonic(), self.step, time.monotonic()
        while self.step < self.training.steps and self.waiting < self.training.patience:
            loss = self._advance()
            if self.step % self.training.evaluate == 0 or self.step == self.training.steps:
                self._judge(loss, (time.monotonic() - started) / (self.step - first))
            if self.progress:
                self.progress(f"distill: loss {loss:.4f}", self.step, self.training.steps)
            if time.monotonic() - saved > EVERY_S:
                self.keep()
                saved = time.monotonic()
        with torch.no_grad():
            for name, tensor in self._best.items():
                self.parameters[name].copy_(tensor)
        return self.best

    def held_out_kld(self) -> float:
        """The mean forward KL divergence, in nats a token, on what the student does not learn from."""
        sums = sum(self.objective.kld(batch) * len(batch.tokens) for batch in self.batches.of_held_out())
        return sums / len(self.batches.held_out)

    def accepted(self) -> tuple[float, float]:
        """There, as drafts for the teacher: the shares of the most likely tokens, and of drawn ones, that it takes."""
        shares = [self.objective.accepted(batch) * len(batch.tokens) for batch in self.batches.of_held_out()]
        likeliest, drawn = (torch.stack(shares).sum(dim=0) / len(self.batches.held_out)).tolist()
        return likeliest, drawn

    def keep(self) -> None:
        """Write the state, whole or not at all."""
        tensors = {"counters": torch.tensor([self.step, self.waiting]), "best_kld": torch.tensor(self.best).double()}
        for number, (name, parameter) in enumerate(self.parameters.items()):
            tensors[f"{number}.weight"] = parameter.detach().contiguous()
            tensors |= {f"{number}.{key}": value for key, value in self.optimizer.state[parameter].items()}
            if name in self._best:
                tensors[f"{number}.best"] = self._best[name]
        part = self.folder / f"{FILE}.part"
        save_file(tensors, part)
        os.replace(part, self.folder / FILE)

    def _resume(self) -> None:
        if not (self.folder / FILE).exists():
            return
        tensors = load_file(self.folder / FILE, device=self.device)
        self.step, self.waiting = tensors["counters"].tolist()
        self.best = float(tensors["best_kld"])
        with torch.no_grad():
            for number, (name, parameter) in enumerate(self.parameters.items()):
                parameter.copy_(tensors[f"{number}.weight"])
                if f"{number}.step" in tensors:  # of what the loss depends on
                    self.optimizer.state[parameter] = {key: tensors[f"{number}.{key}"] for key in MOMENTS}
                if f"{number}.best" in tensors:
                    self._best[name] = tensors[f"{number}.best"]
        logger.info("distill: going on after step %d", self.step)

    def _advance(self) -> float:
        """One step; its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.rate_at(self.step)
        total = 0.0
        for batch in self.batches.of_step(self.step, self.student):
            loss = self.objective.loss(batch) / self.training.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return total

    def _judge(self, loss: float, seconds: float) -> None:
        """Measure what is held out, and keep the weights where they are the best so far."""
        found = self.held_out_kld()
        left = (self.training.steps - self.step) * seconds / 60
        said = "distill: step %d, loss %.4f, held-out KL divergence %.4g; at most %.0f minutes are left"
        logger.info(said, self.step, loss, found, left)
        if found < self.best:
            self.best, self.waiting = found, 0
            self._best = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        else:
            self.waiting += 1
