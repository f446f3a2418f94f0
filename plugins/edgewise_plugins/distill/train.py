"""plugins, distill: the loop: a student learns from a teacher, step by step; one that was killed goes on where it was.

Everything that a step depends on is in its number and in the state that is kept: so an interrupted run ends with the
same bits as one that was not, on a CPU with as many threads.
"""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from edgewise.writer import Progress
from edgewise_plugins.distill.executor import Executor
from edgewise_plugins.distill.losses import LOSSES, cross_entropy, forward_kl
from edgewise_plugins.distill.plan import Training

logger = logging.getLogger(__name__)

Tensor = torch.Tensor

EVERY_S = 60.0  # between states that are kept
FILE = "state.safetensors"


@dataclass
class Run:
    """A student and its teacher, which have one vocabulary, on sequences of tokens `[n, length]`.

    folder: where the state is kept, and looked for.
    """

    student: Executor
    teacher: Executor
    sequences: np.ndarray
    training: Training
    folder: Path
    progress: Progress | None = None
    step: int = 0
    best: float = float("inf")  # the KL divergence on what is held out
    waiting: int = 0  # evaluations since then
    _best: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.student.to(self.device)
        self.teacher.to(self.device).requires_grad_(False)
        count = max(1, round(self.training.held_out * len(self.sequences)))
        order = np.random.default_rng(self.training.seed).permutation(len(self.sequences))
        self.held_out, self.seen = self.sequences[order[:count]], self.sequences[order[count:]]
        self.parameters = dict(self.student.weights())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), betas=(0.9, 0.95), weight_decay=self.training.weight_decay
        )
        self.shared = _shared_layers(self.student, self.teacher) if self.training.hidden else []

    def train(self) -> float:
        """Go on from the state that is kept to the end; the KL divergence on what is held out then, the best."""
        self._resume()
        saved = time.monotonic()
        while self.step < self.training.steps and self.waiting < self.training.patience:
            loss = self._advance()
            if self.step % self.training.evaluate == 0 or self.step == self.training.steps:
                self._judge(loss)
            if self.progress:
                self.progress("distill", self.step, self.training.steps)
            if time.monotonic() - saved > EVERY_S:
                self.keep()
                saved = time.monotonic()
        with torch.no_grad():
            for name, tensor in self._best.items():
                self.parameters[name].copy_(tensor)
        return self.best

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
                state = {key: tensors[f"{number}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                self.optimizer.state[parameter] = state | {"step": state["step"].cpu()}
                if f"{number}.best" in tensors:
                    self._best[name] = tensors[f"{number}.best"]
        logger.info("distill: going on after step %d", self.step)

    def _advance(self) -> float:
        """One step; its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.rate_at(self.step)
        total = 0.0
        for tokens in self._batches():
            loss = self._loss(tokens) / self.training.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return total

    def _batches(self) -> Iterator[Tensor]:
        """Of this step: every sequence comes once before one comes again, in an order of its own each time."""
        size = min(self.training.batch, len(self.seen))
        per_round = max(1, len(self.seen) // size)
        for part in range(self.training.accumulate):
            number = self.step * self.training.accumulate + part
            order = np.random.default_rng([self.training.seed, number // per_round]).permutation(len(self.seen))
            first = number % per_round * size
            yield torch.from_numpy(self.seen[order[first : first + size]]).to(self.device)

    def _loss(self, tokens: Tensor) -> Tensor:
        wanted = ["logits", *(name for name, _ in self.shared)]
        with torch.no_grad(), self._narrow():
            theirs = self.teacher(tokens, ["logits", *(name for _, name in self.shared)])
        with self._narrow():
            ours = self.student(tokens, wanted)
        t = self.training
        loss = LOSSES[t.objective](ours["logits"].float(), theirs["logits"].float(), t.temperature)
        if t.cross_entropy:
            loss = loss + t.cross_entropy * cross_entropy(ours["logits"].float(), tokens)
        for mine, other in self.shared:
            difference = ours[mine].float() - theirs[other].float()
            loss = loss + t.hidden * difference.square().mean() / theirs[other].float().square().mean()
        return loss

    def _judge(self, loss: float) -> None:
        """Measure what is held out, and keep the weights where they are the best so far."""
        found = self.held_out_kld()
        logger.info("distill: step %d, loss %.4f, held-out KL divergence %.4f", self.step, loss, found)
        if found < self.best:
            self.best, self.waiting = found, 0
            self._best = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        else:
            self.waiting += 1

    def held_out_kld(self) -> float:
        """The mean forward KL divergence, in nats a token, on what the student does not learn from."""
        sums = 0.0
        with torch.no_grad(), self._narrow():
            for start in range(0, len(self.held_out), self.training.batch):
                tokens = torch.from_numpy(self.held_out[start : start + self.training.batch]).to(self.device)
                ours, theirs = self.student(tokens)["logits"], self.teacher(tokens)["logits"]
                sums += float(forward_kl(ours.float(), theirs.float(), 1.0)) * len(tokens)
        return sums / len(self.held_out)

    def _narrow(self) -> torch.autocast:
        """bfloat16 where a GPU computes."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda")


def _shared_layers(student: Executor, teacher: Executor) -> list[tuple[str, str]]:
    """Hidden states that are held against each other: those of the student beside the teacher's at the same depth."""
    ours, theirs = student.layers, teacher.layers
    return [(f"hidden.{i}", f"hidden.{round(i * theirs / ours)}") for i in range(1, ours + 1)]
