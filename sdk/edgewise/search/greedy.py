"""sdk, search: greedy search."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgewise.search.protocol import FloatArray
from edgewise.search.stepwise import Ids, Stepwise


@dataclass(frozen=True, kw_only=True)
class Greedy(Stepwise):
    """Takes the most probable token at each step."""

    name: ClassVar[str] = "greedy"

    def candidates(self, scores: FloatArray, state: Any = None) -> tuple[Ids | None, FloatArray]:
        return scores.argmax(0, keepdims=True), np.ones(1, np.float32)

    def choose(self, scores: FloatArray, state: Any, rng: np.random.Generator) -> tuple[int, Any]:
        return int(scores.argmax()), state
