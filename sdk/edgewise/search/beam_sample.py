"""sdk, search: beam sampling: a beam search that draws its continuations, as transformers' `beam_sample` does."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from edgewise.errors import GenerationError, OptionError
from edgewise.search.beam import Beam
from edgewise.search.front import Candidates
from edgewise.search.logprobs import most_probable
from edgewise.search.named import Named, find_search
from edgewise.search.protocol import FloatArray, Search, Vocabulary
from edgewise.search.stepwise import Stepwise


@dataclass(frozen=True, kw_only=True)
class BeamSample(Beam):
    """Beam search at random: continuations are drawn, of all sequences together, and the best of those are kept.

    What is drawn has the probability of its whole sequence, token by token by the distribution that `search` draws
    from: filters and a temperature shape it. Scores are by that distribution too.
    """

    name: ClassVar[str] = "beam_sample"
    search: Search | Named = "sample"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.search, Search) and (not isinstance(self.search, Stepwise) or self.search.stateful):
            raise OptionError(f"a beam cannot draw by search '{self.search.name}'; give it one such as sample")

    def bind(self, vocabulary: Vocabulary) -> Self:
        return replace(self, search=find_search(self.search, vocabulary))

    def candidates(self, scores: FloatArray, count: int, rng: np.random.Generator) -> Candidates:
        """A race of exponential clocks: the first to ring are as if drawn one after the other, without replacement."""
        if not isinstance(self.search, Stepwise):
            raise GenerationError(f"search '{self.name}' has not been bound to a vocabulary")
        ids, weights = self.search.candidates(scores)
        race = (weights / rng.standard_exponential(len(weights))).astype(np.float32)  # in doubles: no clock rings at 0
        first = most_probable(race, count)
        total = np.log(weights.sum())
        with np.errstate(divide="ignore"):
            values, keys = np.log(weights[first]) - total, np.log(race[first]) - total
        return Candidates(first if ids is None else ids[first], values, keys)
