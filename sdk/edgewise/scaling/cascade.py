"""sdk, scaling: a cascade of models (FrugalGPT, Chen et al., arXiv 2305.05176): a larger one answers what needs it.

What says whether an answer will do is a verifier: how sure the model was (a quantile of token probabilities; Gupta et
al., arXiv 2404.10136), how many of its samples agree (Yue et al., arXiv 2310.03094), or any other one.
"""

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from edgewise.errors import OptionError
from edgewise.scaling.judge import Votes
from edgewise.scaling.likelihood import Likelihood
from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Flow, Scaler
from edgewise.scaling.verifier import Verifier, find_verifier, judged

LEAST_SURE = Likelihood(quantile=0.1)


@dataclass(frozen=True, kw_only=True)
class Ask(Scaler):
    """The answer of one model that the verifier scores best, of so many samples: a step of a cascade, by itself."""

    name: ClassVar[str] = "ask"
    model: int = 0
    verifier: str | Mapping[str, Any] | Verifier = LEAST_SURE
    samples: int = 1

    def __post_init__(self) -> None:
        check_step(self.verifier, self.samples)

    def flow(self, context: Context) -> Flow:
        found = yield from asked(context, self.model, find_verifier(self.verifier), self.samples)
        best = max(found, key=lambda each: each.score)
        return Choice(best, found, f"score {best.score:.4g}, the best of {len(found)}")


@dataclass(frozen=True, kw_only=True)
class Cascade(Scaler):
    """Asks model 0, and the next one where the verifier scores the answer below the model's threshold.

    One threshold for each model but the last, whose answer stands; `edgewise cascade calibrate` finds them. With
    `samples`, so many of each model but the last are scored together, and the best one counts: of the verifier `votes`
    the score is their agreement.
    """

    name: ClassVar[str] = "cascade"
    models: ClassVar[int] = 2
    thresholds: tuple[float, ...]
    verifier: str | Mapping[str, Any] | Verifier = LEAST_SURE
    samples: int = 1

    def __post_init__(self) -> None:
        check_step(self.verifier, self.samples)
        if not self.thresholds:
            raise OptionError("thresholds are empty; a cascade has one for each model but the last")
        if any(math.isnan(each) for each in self.thresholds):
            raise OptionError(f"thresholds are {list(self.thresholds)}; a score is neither below nor above nan")

    def flow(self, context: Context) -> Flow:
        last = len(self.thresholds)
        verifier = find_verifier(self.verifier)
        if context.models != max(last + 1, verifier.models):
            raise OptionError(f"{last} thresholds are for {last + 1} models, and there are {context.models}")
        found: tuple[Candidate, ...] = ()
        best: Candidate | None = None
        for model, threshold in enumerate(self.thresholds):
            drawn = yield from asked(context, model, verifier, self.samples)
            if best and not drawn:
                return Choice(best, found, f"model {best.model}, below its threshold; the budget was spent")
            found += drawn
            best = max(drawn, key=lambda each: each.score)
            if best.score >= threshold:
                return Choice(best, found, f"model {model}: score {best.score:.4g} of {threshold:.4g}")
        drawn = yield Draw(model=last, options=verifier.options, varied=False)
        if best and not drawn:
            return Choice(best, found, f"model {best.model}, below its threshold; the budget was spent")
        return Choice(drawn[0], (*found, *drawn), f"model {last}, the last")


def asked(
    context: Context, model: int, verifier: Verifier, samples: int
) -> Generator[Draw, tuple[Candidate, ...], tuple[Candidate, ...]]:
    """Samples of a model with their scores; none once the budget is spent."""
    drawn = yield Draw(model=model, count=samples, options=verifier.options, varied=samples > 1)
    verdicts = yield from judged(verifier, context, drawn)
    return tuple(replace(each, score=verdict.score) for each, verdict in zip(drawn, verdicts, strict=True))


def check_step(verifier: str | Mapping[str, Any] | Verifier, samples: int) -> None:
    """Raises OptionError for samples that there cannot be, or that say nothing."""
    if samples < 1:
        raise OptionError(f"samples is {samples}; it must be 1 or more")
    if isinstance(find_verifier(verifier), Votes) and samples < 2:
        raise OptionError("verifier 'votes' says how many samples agree, and there is 1; give samples=5, or so")
