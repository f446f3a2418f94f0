"""plugins, distill: teachers: one that is asked, one whose answers are kept, and the text that one writes."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from edgewise.writer import Progress
from edgewise_plugins.distill.executor import Executor, narrowed
from edgewise_plugins.distill.generate import generator, write
from edgewise_plugins.distill.kept import ROWS, Shapes, kept, shapes_of_top
from edgewise_plugins.distill.losses import Top, with_rest

Tensor = torch.Tensor


class Teacher(Protocol):
    """What a student learns from."""

    def scores(self, tokens: Tensor, numbers: np.ndarray | None) -> Tensor | Top:
        """What it says of sequences `[n, length]`; their numbers in the text, None where they are not from there."""
        ...

    def hidden(self, tokens: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores, and hidden states by their names."""
        ...


class Present:
    """A teacher in memory."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def scores(self, tokens: Tensor, numbers: np.ndarray | None) -> Tensor:
        return self.hidden(tokens, ())[0]

    def hidden(self, tokens: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad(), narrowed(self.executor):
            said = self.executor(tokens, ("logits", *names))
        return said.pop("logits").float(), {name: tensor.float() for name, tensor in said.items()}


class Stored:
    """Answers that are kept, of the most likely tokens; by the numbers of the sequences."""

    def __init__(self, tokens: np.ndarray, logs: np.ndarray) -> None:
        self.tokens, self.logs = tokens, logs

    def scores(self, tokens: Tensor, numbers: np.ndarray | None) -> Top:
        assert numbers is not None  # Training lets no other text in
        top = torch.from_numpy(self.tokens[numbers].astype(np.int64))
        logs = torch.from_numpy(self.logs[numbers].astype(np.float32))
        return Top(top.to(tokens.device), logs.to(tokens.device))

    def hidden(self, tokens: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        raise AssertionError("Training lets none ask for hidden states that are not kept")


def store(
    executor: Executor,
    sequences: np.ndarray,
    key: str,
    *,
    top: int,
    temperature: float,
    vocabulary: int,
    progress: Progress | None = None,
) -> Stored:
    """Ask once, and keep what is said of the `top` most likely tokens; from the cache if it is there."""
    device = next(executor.parameters()).device

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        batch = torch.from_numpy(sequences[start:stop]).to(device)
        with torch.no_grad(), narrowed(executor):
            scores = executor(batch)["logits"].float() / temperature
        logs, tokens = scores.log_softmax(dim=-1).topk(top, dim=-1)
        return {"tokens": tokens.cpu().numpy(), "logs": with_rest(logs).cpu().numpy()}

    shapes = shapes_of_top(sequences.shape[1], top, vocabulary)
    found = kept(key, shapes, len(sequences), compute, batch=ROWS, stage="teacher", progress=progress)
    return Stored(found["tokens"], found["logs"])


def written(
    executor: Executor, sequences: np.ndarray, key: str, *, prompt: int, seed: int, progress: Progress | None = None
) -> np.ndarray:
    """The sequences as a teacher goes on from their first tokens (arXiv 1606.07947); from the cache if it is there."""
    device, length = next(executor.parameters()).device, sequences.shape[1]

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        prompts = torch.from_numpy(sequences[start:stop, :prompt]).to(device)
        with narrowed(executor):
            text = write(executor, prompts, length, generator(device.type, seed, start))
        return {"text": text.cpu().numpy()}

    shapes: Shapes = {"text": ((length,), "<i8")}
    found = kept(key, shapes, len(sequences), compute, batch=ROWS, stage="teacher writes", progress=progress)
    return np.array(found["text"])
