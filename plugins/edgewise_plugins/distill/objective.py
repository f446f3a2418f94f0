"""plugins, distill: what is minimised: the distance of a student from its teacher on a batch of sequences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgewise.graph import layer
from edgewise_plugins.distill.executor import Executor, narrowed
from edgewise_plugins.distill.losses import LOSSES, Top, cross_entropy, distributions, forward_kl, relative_error
from edgewise_plugins.distill.plan import DIVERGENCES, Training
from edgewise_plugins.distill.teachers import Teacher

Tensor = torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences of tokens `[n, length]`, and their numbers in the text; None where the student wrote them."""

    tokens: Tensor
    numbers: np.ndarray | None


@dataclass(frozen=True)
class Objective:
    """A loss as `training` says it; `depths` are the teacher's hidden states beside the student's, from 0 on."""

    student: Executor
    teacher: Teacher
    training: Training
    depths: Sequence[int]

    def loss(self, batch: Batch) -> Tensor:
        """With derivatives."""
        t = self.training
        scores, states = self._said(batch)
        if t.objective == "blocks":
            total = self._blocks(batch, states)
            if not (t.hidden or t.cross_entropy):
                return total
        ours = self._student(batch, [f"hidden.{i}" for i in range(1, len(self.depths))] if t.hidden else [])
        logits = ours["logits"].float()
        if t.objective in DIVERGENCES:
            assert scores is not None
            total = LOSSES[t.objective](*distributions(logits, scores, t.temperature), t.temperature)
        elif t.objective == "cross_entropy":
            total = cross_entropy(logits, batch.tokens)
        if t.cross_entropy and batch.numbers is not None:
            total = total + t.cross_entropy * cross_entropy(logits, batch.tokens)
        for i in range(1, len(self.depths)) if t.hidden else ():
            total = total + t.hidden * relative_error(ours[f"hidden.{i}"].float(), states[f"hidden.{self.depths[i]}"])
        return total

    def kld(self, batch: Batch) -> float:
        """The forward KL divergence, in nats a token, at the temperature at which answers are kept, or at 1."""
        return float(forward_kl(*self._both(batch), 1.0))

    def accepted(self, batch: Batch) -> Tensor:
        """As drafts for the teacher: the share of the student's most likely tokens that are accepted, and of those that
        it draws; of a teacher whose most likely tokens alone are kept, among these.
        """
        q, p = (logs[..., : self.training.top or None].exp() for logs in self._both(batch))
        same = q.gather(-1, p.argmax(dim=-1, keepdim=True)) == q.amax(dim=-1, keepdim=True)
        return torch.stack([same.float().mean(), torch.minimum(p, q).sum(dim=-1).mean()])

    def _both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logarithms of the probabilities of both."""
        temperature = self.training.temperature if self.training.top else 1.0
        with torch.no_grad():
            logits = self._student(batch, [])["logits"].float()
            return distributions(logits, self.teacher.scores(batch.tokens, batch.numbers), temperature)

    def _said(self, batch: Batch) -> tuple[Tensor | Top | None, Mapping[str, Tensor]]:
        """The teacher's scores and hidden states, as far as they are needed."""
        if self.training.takes_hidden:
            return self.teacher.hidden(batch.tokens, sorted({f"hidden.{depth}" for depth in self.depths}))
        if self.training.objective not in DIVERGENCES:
            return None, {}
        return self.teacher.scores(batch.tokens, batch.numbers), {}

    def _student(self, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
        with narrowed(self.student):
            found: dict[str, Tensor] = self.student(batch.tokens, ("logits", *names))
        return found

    def _blocks(self, batch: Batch, states: Mapping[str, Tensor]) -> Tensor:
        """Of each layer by itself: what it makes of the teacher's state, beside what the teacher's layers make."""
        errors = []
        for i, (before, after) in enumerate(zip(self.depths, self.depths[1:], strict=False)):
            given = {f"hidden.{i}": states[f"hidden.{before}"]}
            with narrowed(self.student):
                found = self.student(batch.tokens, (f"hidden.{i + 1}",), given)[f"hidden.{i + 1}"].float()
            errors.append(relative_error(found, states[f"hidden.{after}"]))
        return torch.stack(errors).mean()


def depths(student: Executor, teacher: Executor) -> list[int]:
    """The teacher's hidden state that each of the student's is held against, from the first to the last.

    A layer that is left of the teacher's is known by the name of a weight; it stands for those after it that are gone,
    too. One that is new has its place by its depth.
    """
    origins = {name: number for number, names in _names(teacher).items() for name in names}
    ours = _names(student)
    found = [
        next((origins[name] for name in ours.get(i, []) if name in origins), i * teacher.layers // student.layers)
        for i in range(student.layers)
    ]
    return [0, *found[1:], teacher.layers]


def _names(executor: Executor) -> dict[int, list[str]]:
    """The weights of each layer."""
    names: dict[int, list[str]] = {}
    for node in executor.nodes:
        number = layer(node)
        if number is not None:
            held = [str(v.name) for v in node.inputs if v is not None and v.is_initializer() and v.shape is not None]
            names.setdefault(number, []).extend(name for name in held if name.endswith(".weight"))
    return names
