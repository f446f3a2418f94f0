"""sdk, scaling: adaptive consistency (Aggarwal et al., arXiv 2305.11860): samples until more would not change the vote.

The counts of answers are those of draws from an unknown distribution; from a uniform prior its posterior is Dirichlet,
with one more than the count for each answer, and for one answer that was not seen yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgewise.errors import OptionError
from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.protocol import Candidate, Context, Draw, Flow, Scaler
from edgewise.scaling.votes import answered, counted, elected

POINTS = 2048  # of the integral; its error is far below a vote's


@dataclass(frozen=True, kw_only=True)
class AdaptiveConsistency(Scaler):
    """Votes as self-consistency does, and stops once the leader is the most probable answer with this `confidence`.

    With `window`, it stops once so many samples in a row agree instead (early-stopping self-consistency, Li et al.,
    arXiv 2401.10480), and draws that many at a time.
    """

    name: ClassVar[str] = "adaptive-consistency"
    most: ClassVar[int | None] = 1
    extract: str | Extract = "last_number"
    confidence: float = 0.95
    batch: int = 4  # samples that are drawn together: a step of several rows takes little longer than of one
    window: int | None = None

    def __post_init__(self) -> None:
        find_extract(self.extract)
        if not 0.5 <= self.confidence < 1:
            raise OptionError(f"confidence is {self.confidence}; it must be from 0.5 to below 1")
        for name, least in (("batch", 1), ("window", 2)):
            if (value := getattr(self, name)) is not None and value < least:
                raise OptionError(f"{name} is {value}; it must be {least} or more")

    def flow(self, context: Context) -> Flow:
        found: tuple[Candidate, ...] = ()
        while drawn := (yield Draw(count=self.window or self.batch)):
            found += answered(drawn, self.extract)
            if certainty := self._certainty(found, len(drawn)):
                choice = elected(found, counted(found))
                return replace(choice, why=f"{choice.why}, {certainty}")
        return elected(found, counted(found))

    def _certainty(self, found: tuple[Candidate, ...], drawn: int) -> str:
        """Why no more samples are needed; empty where they are."""
        if self.window:
            last = {each.answer for each in found[-drawn:]}
            agree = drawn == self.window and len(last) == 1 and None not in last
            return f"{drawn} in a row agree" if agree else ""
        leads = leading(list(counted(found).values()))
        return f"which lead with probability {leads:.3f}" if leads >= self.confidence else ""


def leading(counts: Sequence[int]) -> float:
    r"""The probability that the answer with most votes is the most probable one.

    Of Dirichlet(counts + 1, 1): a Dirichlet is a vector of Gammas over their sum, so that this is
    $\int \gamma(x; a_1) \prod_{j>1} \Gamma(x; a_j) dx$, in whole numbers $a$. 0 for no votes.
    """
    if not counts:
        return 0.0
    shapes = np.array([*sorted(counts, reverse=True), 0]) + 1
    end = shapes[0] + 12 * np.sqrt(shapes[0]) + 20
    x = (np.arange(POINTS) + 0.5) * (end / POINTS)
    terms = np.arange(1, shapes[0])
    logs = np.concatenate(([0.0], np.cumsum(np.log(terms))))  # of k!
    powers = np.exp(np.arange(shapes[0]) * np.log(x)[:, None] - x[:, None] - logs)  # of a Poisson process: k by x
    below = 1 - np.cumsum(powers, axis=1)  # of Gamma(k + 1), at x
    return float((powers[:, -1] * np.prod(below[:, shapes[1:] - 1], axis=1)).sum() * end / POINTS)
