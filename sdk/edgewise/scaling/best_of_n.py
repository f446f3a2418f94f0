"""sdk, scaling: best of N: the sample that a verifier thinks best, alone or together with those of the same answer."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Flow, Scaler
from edgewise.scaling.verifier import Verifier, find_verifier, judged
from edgewise.scaling.votes import BATCH, answered, elected


@dataclass(frozen=True, kw_only=True)
class BestOfN(Scaler):
    """Samples until the budget is spent, and takes the one with the best score.

    With `extract`, scores are summed over samples of the same answer (weighted best-of-N; Li et al., arXiv
    2206.02336), and the best sample of the best answer is taken.
    """

    name: ClassVar[str] = "best-of-n"
    verifier: str | Mapping[str, Any] | Verifier = "logprob"
    extract: str | Extract | None = None

    def __post_init__(self) -> None:
        find_verifier(self.verifier)
        if self.extract is not None:
            find_extract(self.extract)

    def flow(self, context: Context) -> Flow:
        verifier = find_verifier(self.verifier)
        found: tuple[Candidate, ...] = ()
        while drawn := (yield Draw(count=BATCH, options=verifier.options)):
            verdicts = yield from judged(verifier, context, drawn)
            found += tuple(replace(each, score=v.score) for each, v in zip(drawn, verdicts, strict=True))
        if self.extract is None:
            best = max(found, key=lambda each: each.score)
            return Choice(best, found, f"score {best.score:.4g}, the best of {len(found)}")
        return _weighted(answered(found, self.extract))


def _weighted(found: tuple[Candidate, ...]) -> Choice:
    votes: Counter[str] = Counter()
    for each in found:
        if each.answer is not None:
            votes[each.answer] += each.score  # type: ignore[assignment]
    chosen = elected(found, votes)
    same = [each for each in found if each.answer == chosen.best.answer]
    return replace(chosen, best=max(same, key=lambda each: each.score), candidates=found)
