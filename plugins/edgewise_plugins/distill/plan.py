"""plugins, distill: how a student learns, as plain data: what is minimised, for how long, at which rates."""

import math
from dataclasses import dataclass
from typing import Literal

from edgewise.errors import OptionError

Objective = Literal["forward_kl", "reverse_kl", "jensen_shannon", "cross_entropy", "blocks"]

Learn = Literal["weights", "scales"]
Precision = Literal["float32", "bfloat16"]

DIVERGENCES = ("forward_kl", "reverse_kl", "jensen_shannon")


@dataclass(frozen=True)
class Training:
    """What is minimised is the objective, with so much of the cross-entropy and of the hidden states' squared error.

    Objectives: three divergences of the student's scores from the teacher's; `cross_entropy`, of the text alone; and
    `blocks`, the squared error of each layer by itself, which is given the teacher's hidden states. With `top`, the
    teacher's scores of that many tokens are computed once and kept, and it is not in memory while the student learns.
    The share `sampled` of the batches goes on, from a quarter of each sequence, as the student writes (GKD).

    A step takes `batch` sequences, `accumulate` times. The rate rises for the share `warmup` of the steps, and falls
    like a cosine to a tenth after that (AdamW, arXiv 1711.05101). The KL divergence on the share `held_out` of the
    sequences is measured every `evaluate` steps; the best weights are kept, and after `patience` times without a
    better one it is over. Products are in bfloat16 on a GPU, elsewhere in float32 unless `precision` says otherwise.
    """

    objective: Objective = "forward_kl"
    temperature: float = 1.0
    cross_entropy: float = 0.0
    hidden: float = 0.0
    top: int = 0
    sampled: float = 0.0
    steps: int = 1000
    batch: int = 8
    accumulate: int = 1
    rate: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    held_out: float = 0.05
    evaluate: int = 100
    patience: int = 5
    seed: int = 0
    precision: Precision | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "evaluate", "patience"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}: {getattr(self, name)} is not 1 or more")
        for name in ("temperature", "rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(f"{name}: {getattr(self, name)} is no number above 0")
        for name in ("cross_entropy", "hidden", "top", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(f"{name}: {getattr(self, name)} is no number from 0 on")
        if not 0 <= self.warmup < 1 or not 0 < self.held_out < 1:
            raise OptionError(f"warmup ({self.warmup}) is a share of the steps, held_out ({self.held_out}) of the text")
        if not 0 <= self.sampled <= 1:
            raise OptionError(f"sampled: {self.sampled} is no share of the batches, from 0 to 1")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.sampled and self.objective not in DIVERGENCES:
            raise OptionError(f"sampled: what a student writes teaches it nothing by the objective '{self.objective}'")
        if self.top and self.sampled:
            raise OptionError("top keeps scores of the text; sampled needs those of what the student writes: give one")
        if self.top and self.takes_hidden:
            raise OptionError("top keeps scores alone; hidden states need the teacher in memory: give one of them")

    @property
    def takes_hidden(self) -> bool:
        """Whether hidden states are held against each other."""
        return self.hidden > 0 or self.objective == "blocks"

    def rate_at(self, step: int) -> float:
        """The rate of a step, from 0 on."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.rate * (step + 1) / rising
        done = (step - rising) / max(1, self.steps - rising)
        return self.rate * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)
