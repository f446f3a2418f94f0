"""sdk, scaling: how sure the model was of an answer itself, as a verifier: no second model is needed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgewise.errors import OptionError
from edgewise.scaling.protocol import Candidate, Context
from edgewise.scaling.verifier import Judging, Verdict, Verifier


@dataclass(frozen=True, kw_only=True)
class Likelihood(Verifier):
    """The geometric mean of the probabilities of an answer's tokens, or with `quantile` that quantile of them.

    With `product`, the probability of the whole text: what weighs votes well, and compares texts of one length only.

    A low quantile is what deferral goes by (Gupta et al., arXiv 2404.10136): one doubtful token counts, and a long
    answer is not held against it. Scores are from 0 to 1.
    """

    name: ClassVar[str] = "logprob"
    options: ClassVar[Mapping[str, Any]] = {"logprobs": 0}
    quantile: float | None = None  # from 0 (the least probable token) to 1
    product: bool = False

    def __post_init__(self) -> None:
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise OptionError(f"quantile is {self.quantile}; it must be from 0 to 1")
        if self.quantile is not None and self.product:
            raise OptionError("verifier 'logprob' has a quantile and a product; give one of them")

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        return tuple(Verdict(self.score(each)) for each in candidates)
        yield  # never reached: what makes this a generator

    def score(self, candidate: Candidate) -> float:
        """The score of one candidate; of no tokens, 0."""
        logprobs = [each.logprob for each in candidate.logprobs]
        if not logprobs:
            return 0.0
        if self.product:
            return math.exp(sum(logprobs))
        return math.exp(np.mean(logprobs) if self.quantile is None else np.quantile(logprobs, self.quantile))
