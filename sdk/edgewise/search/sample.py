"""sdk, search: sampling from the model's distribution, reshaped and cut by filters in an order of choice."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from edgewise.errors import OptionError
from edgewise.options import unknown
from edgewise.search.filters.cutoffs import Epsilon, Eta, MinP
from edgewise.search.filters.pool import Filter, filtered
from edgewise.search.filters.temperature import Temperature
from edgewise.search.filters.top_k import TopK
from edgewise.search.filters.top_n_sigma import TopNSigma
from edgewise.search.filters.top_p import TopP
from edgewise.search.filters.typical import Typical
from edgewise.search.filters.xtc import Xtc
from edgewise.search.protocol import FloatArray
from edgewise.search.stepwise import Ids, Stepwise

FILTERS: dict[str, Callable[["Sample"], Filter]] = {
    "temperature": lambda s: Temperature(s.temperature, s.temperature_range, s.temperature_exponent),
    "top_n_sigma": lambda s: TopNSigma(s.top_n_sigma),
    "top_k": lambda s: TopK(s.top_k),
    "top_p": lambda s: TopP(s.top_p),
    "min_p": lambda s: MinP(s.min_p),
    "typical_p": lambda s: Typical(s.typical_p),
    "epsilon_cutoff": lambda s: Epsilon(s.epsilon_cutoff),
    "eta_cutoff": lambda s: Eta(s.eta_cutoff),
    "xtc": lambda s: Xtc(s.xtc_probability, s.xtc_threshold),
}
ORDER = tuple(FILTERS)  # that of transformers, where it has them


@dataclass(frozen=True, kw_only=True)
class Sample(Stepwise):
    """Draws each token at random, from what the filters leave of the model's distribution.

    Filters are applied in `order`, those that do something; each sees what the ones before it left. Every filter is
    described in its own file, `edgewise/search/filters/`.
    """

    name: ClassVar[str] = "sample"
    temperature: float = 1.0  # 0: greedy, whatever the other filters say
    temperature_range: float = 0.0  # the temperature follows the entropy, so far up and down
    temperature_exponent: float = 1.0
    top_n_sigma: float = 0.0  # 0: all
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0  # of the probability of the most probable token
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    order: tuple[str, ...] = ORDER

    def __post_init__(self) -> None:
        for i, name in enumerate(self.order):
            if name not in FILTERS:
                raise OptionError(f"order: {unknown('filter', name, FILTERS)}")
            if name in self.order[:i]:
                raise OptionError(f"order has '{name}' twice; each filter is applied once")
        for name, make in FILTERS.items():
            if make(self).active and name not in self.order:
                raise OptionError(f"'{name}' is asked for and is not in the order: {', '.join(self.order) or 'none'}")
        for name, of in (("temperature_exponent", "temperature_range"), ("xtc_threshold", "xtc_probability")):
            value = getattr(self, name)
            if value != getattr(Sample, name) and not getattr(self, of):
                raise OptionError(f"{name} is {value}, and does nothing without {of}; give it too")

    def candidates(self, scores: FloatArray, state: Any = None) -> tuple[Ids | None, FloatArray]:
        if self.temperature == 0:
            return scores.argmax(0, keepdims=True), np.ones(1, np.float32)
        return filtered(scores, self._filters)

    @cached_property
    def _filters(self) -> tuple[Filter, ...]:
        """Those that do something, in order."""
        made = (FILTERS[name](self) for name in self.order)
        return tuple(each for each in made if each.active)
