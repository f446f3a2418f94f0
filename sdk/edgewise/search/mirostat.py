"""sdk, search: Mirostat (arXiv 2007.14966), its second version: as the authors' code and llama.cpp compute it."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.draw import draw
from edgewise.search.filters.pool import Pool
from edgewise.search.filters.temperature import Temperature
from edgewise.search.protocol import FloatArray
from edgewise.search.stepwise import Ids, Stepwise


@dataclass(frozen=True, kw_only=True)
class Mirostat(Stepwise):
    """Draws tokens so that their surprise stays near `tau` bits: it follows what it drew, and cuts what is above.

    The state is mu: how surprising a token may be.
    """

    name: ClassVar[str] = "mirostat"
    stateful: ClassVar[bool] = True
    tau: float = 5.0  # bits
    eta: float = 0.1  # how fast mu follows
    temperature: float = 1.0  # 0: greedy

    def __post_init__(self) -> None:
        Temperature(self.temperature)
        if not 0 < self.tau < math.inf:
            raise OptionError(f"tau is {self.tau}; it must be above 0 bits")
        if not 0 <= self.eta <= 1:
            raise OptionError(f"eta is {self.eta}; it must be from 0 (mu stays) to 1")

    def start(self) -> float:
        return 2 * self.tau

    def candidates(self, scores: FloatArray, state: float | None = None) -> tuple[Ids | None, FloatArray]:
        if self.temperature == 0:
            return scores.argmax(0, keepdims=True), np.ones(1, np.float32)
        pool = Pool(scores).heated(self.temperature)
        share = 2.0 ** -max(0.0, self.start() if state is None else state)
        lowest = min(pool.weights.max(), np.float32(share * float(pool.weights.sum())))
        kept = pool.where(pool.weights >= lowest)
        return kept.ids, kept.weights

    def choose(self, scores: FloatArray, state: float, rng: np.random.Generator) -> tuple[int, float]:
        ids, weights = self.candidates(scores, state)
        index = draw(weights, rng)
        surprise = -math.log2(float(weights[index]) / float(weights.sum()))
        return index if ids is None else int(ids[index]), state - self.eta * (surprise - self.tau)
