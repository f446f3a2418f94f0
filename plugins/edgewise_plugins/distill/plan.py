"""plugins, distill: how a student learns, as plain data: what is minimised, for how long, at which rates."""

import math
from dataclasses import dataclass
from typing import Literal

from edgewise.errors import OptionError

Objective = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


@dataclass(frozen=True)
class Training:
    """What is minimised is the objective, with so much of the cross-entropy and of the hidden states' squared error.

    A step takes `batch` sequences, `accumulate` times. The rate rises for the share `warmup` of the steps, and falls
    like a cosine to a tenth after that (AdamW, arXiv 1711.05101). The KL divergence on the share `held_out` of the
    sequences is measured every `evaluate` steps; the best weights are kept, and after `patience` times without a
    better one it is over.
    """

    objective: Objective = "forward_kl"
    temperature: float = 1.0
    cross_entropy: float = 0.0
    hidden: float = 0.0
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

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "evaluate", "patience"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}: {getattr(self, name)} is not 1 or more")
        for name in ("temperature", "rate"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name}: {getattr(self, name)} is not above 0")
        for name in ("cross_entropy", "hidden", "weight_decay"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name}: {getattr(self, name)} is below 0")
        if not 0 <= self.warmup < 1 or not 0 < self.held_out < 1:
            raise OptionError(f"warmup ({self.warmup}) is a share of the steps, held_out ({self.held_out}) of the text")

    def rate_at(self, step: int) -> float:
        """The rate of a step, from 0 on."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.rate * (step + 1) / rising
        done = (step - rising) / max(1, self.steps - rising)
        return self.rate * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)
