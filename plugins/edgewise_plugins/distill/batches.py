"""plugins, distill: which sequences a step sees: all that follows from its number, so that a run can go on anywhere."""

from collections.abc import Iterator

import numpy as np
import torch

from edgewise_plugins.distill.executor import Executor, narrowed
from edgewise_plugins.distill.generate import generator, write
from edgewise_plugins.distill.objective import Batch
from edgewise_plugins.distill.plan import Training

PROMPT = 4  # of a sequence that a student goes on from, this part


class Batches:
    """The sequences `[n, length]` of a text, in batches; those that are held out are not among a step's."""

    def __init__(self, sequences: np.ndarray, training: Training, device: str) -> None:
        self.sequences, self.training, self.device = sequences, training, device
        count = min(max(1, round(training.held_out * len(sequences))), len(sequences) - 1)  # some are learned from
        order = np.random.default_rng(training.seed).permutation(len(sequences))
        self.held_out, self.seen = order[:count], order[count:]

    def of_step(self, step: int, student: Executor) -> Iterator[Batch]:
        """Every sequence comes once before one comes again, in an order of its own each time."""
        t, size = self.training, min(self.training.batch, len(self.seen))
        per_round = max(1, len(self.seen) // size)
        for number in range(step * t.accumulate, (step + 1) * t.accumulate):
            order = np.random.default_rng([t.seed, number // per_round]).permutation(len(self.seen))
            first = number % per_round * size
            batch = self._batch(self.seen[order[first : first + size]])
            own = t.sampled > 0 and np.random.default_rng([t.seed, 1, number]).random() < t.sampled
            yield self._written(batch, student, number) if own else batch

    def of_held_out(self) -> Iterator[Batch]:
        for start in range(0, len(self.held_out), self.training.batch):
            yield self._batch(self.held_out[start : start + self.training.batch])

    def _batch(self, numbers: np.ndarray) -> Batch:
        return Batch(torch.from_numpy(self.sequences[numbers]).to(self.device), numbers)

    def _written(self, batch: Batch, student: Executor, number: int) -> Batch:
        """As the student goes on from the beginning of each."""
        length = batch.tokens.shape[1]
        draws = generator(self.device, self.training.seed, number)
        with narrowed(student):
            text = write(student, batch.tokens[:, : max(1, length // PROMPT)], length, draws)
        return Batch(text, None)
