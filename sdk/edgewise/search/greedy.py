"""sdk, search: greedy search."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgewise.search.protocol import FloatArray
from edgewise.search.stepwise import Stepwise


@dataclass(frozen=True, kw_only=True)
class Greedy(Stepwise):
    """Takes the most probable token at each step."""

    name: ClassVar[str] = "greedy"

    def choose(self, scores: FloatArray, rng: np.random.Generator) -> int:
        return int(scores.argmax())
