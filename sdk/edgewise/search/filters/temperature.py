"""sdk, search: temperature, and temperature that follows the entropy.

Dynamic temperature: as llama.cpp's `temp_ext` defines it.
"""

import math
from dataclasses import dataclass

import numpy as np

from edgewise.errors import OptionError
from edgewise.search.filters.pool import Pool

COLDEST = 1e-6  # below it, float32 overflows


@dataclass(frozen=True)
class Temperature:
    """Divides the scores by a temperature: below 1 sharpens, above 1 flattens; 0 is greedy.

    With a range, it goes from `temperature - range` where the model is certain to `temperature + range` where all
    tokens are equally probable: with the entropy as a share of the highest possible, to the power of `exponent`.
    """

    temperature: float = 1.0
    range: float = 0.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or COLDEST <= self.temperature < math.inf):
            raise OptionError(f"temperature is {self.temperature}; it must be 0 (greedy) or at least {COLDEST}")
        if not 0 <= self.range <= self.temperature:
            raise OptionError(
                f"temperature_range is {self.range}; it must be from 0 to the temperature, {self.temperature}"
            )
        if not 0 < self.exponent < math.inf:
            raise OptionError(f"temperature_exponent is {self.exponent}; it must be above 0")

    @property
    def active(self) -> bool:
        return self.temperature != 1 or self.range > 0

    def apply(self, pool: Pool) -> Pool:
        if not self.range:
            return pool.heated(self.temperature)
        possible = int(np.count_nonzero(pool.scores > -np.inf))
        if possible < 2:
            return pool
        certain = max(0.0, pool.entropy() / math.log(possible)) ** self.exponent
        return pool.heated(max(COLDEST, self.temperature - self.range + 2 * self.range * certain))
