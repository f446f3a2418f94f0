"""sdk, scaling: adaptive consistency (Aggarwal et al., arXiv 2305.11860): samples until more would not change the vote.

The counts of answers are those of draws from an unknown distribution; from a uniform prior its posterior is Dirichlet,
with one more than the count for each answer, and for one answer that was not seen yet.
"""

import math
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import OptionError
from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.protocol import Candidate, Context, Draw, Flow, Scaler
from edgewise.scaling.verifier import Verifier, find_verifier, judged
from edgewise.scaling.votes import answered, elected

POINTS = 2048  # of the integral; its error is far below a vote's


@dataclass(frozen=True, kw_only=True)
class AdaptiveConsistency(Scaler):
    """Votes as self-consistency does, and stops once the leader is the most probable answer with this `confidence`.

    With `window`, it stops once so many samples in a row agree instead (early-stopping self-consistency, Li et al.,
    arXiv 2401.10480), and draws that many at a time. With `weights`, a verifier, votes are weighed by its scores
    (Taubenfeld et al., arXiv 2502.06233), all samples together by as much as there are of them.
    """

    name: ClassVar[str] = "adaptive-consistency"
    most: ClassVar[int | None] = 1
    extract: str | Extract = "last_number"
    confidence: float = 0.95
    batch: int = 4  # samples that are drawn together: a step of several rows takes little longer than of one
    window: int | None = None
    weights: str | Mapping[str, Any] | Verifier | None = None

    def __post_init__(self) -> None:
        find_extract(self.extract)
        if self.weights is not None:
            find_verifier(self.weights)
        if not 0.5 <= self.confidence < 1:
            raise OptionError(f"confidence is {self.confidence}; it must be from 0.5 to below 1")
        for name, least in (("batch", 1), ("window", 2)):
            if (value := getattr(self, name)) is not None and value < least:
                raise OptionError(f"{name} is {value}; it must be {least} or more")

    def flow(self, context: Context) -> Flow:
        verifier = None if self.weights is None else find_verifier(self.weights)
        draw = Draw(count=self.window or self.batch, options=verifier.options if verifier else {})
        found: tuple[Candidate, ...] = ()
        while drawn := (yield draw):
            found += yield from _weighed(context, answered(drawn, self.extract), verifier)
            if certainty := self._certainty(found, len(drawn)):
                choice = elected(found, votes(found))
                return replace(choice, why=f"{choice.why}, {certainty}")
        return elected(found, votes(found))

    def _certainty(self, found: tuple[Candidate, ...], drawn: int) -> str:
        """Why no more samples are needed; empty where they are."""
        if self.window:
            last = {each.answer for each in found[-drawn:]}
            agree = drawn == self.window and len(last) == 1 and None not in last
            return f"{drawn} in a row agree" if agree else ""
        leads = leading(list(votes(found).values()))
        return f"which lead with probability {leads:.3f}" if leads >= self.confidence else ""


def votes(found: Sequence[Candidate]) -> Counter[str]:
    """Votes by answer, weighed by the scores; all together as many as there are samples with an answer."""
    heard = [each for each in found if each.answer is not None]
    total = sum(each.score for each in heard)
    counted: Counter[str] = Counter()
    for each in heard:
        counted[str(each.answer)] += each.score * len(heard) / total if total else 1.0  # type: ignore[assignment]
    return counted


def _weighed(
    context: Context, drawn: tuple[Candidate, ...], verifier: Verifier | None
) -> Generator[Draw, tuple[Candidate, ...], tuple[Candidate, ...]]:
    """Candidates with their weights as scores: 1 without a verifier."""
    if verifier is None:
        return tuple(replace(each, score=1.0) for each in drawn)
    verdicts = yield from judged(verifier, context, drawn)
    return tuple(replace(each, score=max(0.0, v.score)) for each, v in zip(drawn, verdicts, strict=True))


def leading(counts: Sequence[float]) -> float:
    r"""The probability that the answer with most votes is the most probable one.

    Of Dirichlet(counts + 1, 1): a Dirichlet is a vector of Gammas over their sum, so that this is
    $\int \gamma(x; a_1) \prod_{j>1} \Gamma(x; a_j) dx$. 0 for no votes.
    """
    if not counts:
        return 0.0
    shapes = [1.0 + count for count in (*sorted(counts, reverse=True), 0)]
    end = shapes[0] + 12 * math.sqrt(shapes[0]) + 20
    step = end / POINTS
    x = (np.arange(POINTS, dtype=np.float64) + 0.5) * step
    first, *others = (_density(x, shape) * step for shape in shapes)
    below = [np.cumsum(each) - each / 2 for each in others]
    return float((first * np.prod(below, axis=0)).sum())


def _density(x: NDArray[np.float64], shape: float) -> NDArray[np.float64]:
    """Of a Gamma distribution."""
    return np.asarray(np.exp((shape - 1) * np.log(x) - x - math.lgamma(shape)))
