"""sdk, scaling: a cascade of models (FrugalGPT, Chen et al., arXiv 2305.05176): a larger one answers what needs it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from edgewise.errors import OptionError
from edgewise.scaling.likelihood import Likelihood
from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Flow, Scaler
from edgewise.scaling.verifier import Verifier, find_verifier

LEAST_SURE = Likelihood(quantile=0.1)


@dataclass(frozen=True, kw_only=True)
class Cascade(Scaler):
    """Asks model 0, and the next one where the verifier scores the answer below the model's threshold.

    One threshold for each model but the last, whose answer stands; `edgewise cascade calibrate` finds them.
    """

    name: ClassVar[str] = "cascade"
    models: ClassVar[int] = 2
    thresholds: tuple[float, ...]
    verifier: str | Mapping[str, Any] | Verifier = LEAST_SURE

    def __post_init__(self) -> None:
        find_verifier(self.verifier)
        if not self.thresholds:
            raise OptionError("thresholds are empty; a cascade has one for each model but the last")

    def flow(self, context: Context) -> Flow:
        if context.models != len(self.thresholds) + 1:
            needed = len(self.thresholds) + 1
            raise OptionError(
                f"{len(self.thresholds)} thresholds are for {needed} models, and there are {context.models}"
            )
        verifier = find_verifier(self.verifier)
        found: tuple[Candidate, ...] = ()
        for model, threshold in enumerate((*self.thresholds, None)):
            drawn = yield Draw(model=model, options=verifier.options, varied=False)
            if not drawn:
                return Choice(found[-1], found, f"model {model - 1}, below its threshold; the budget was spent")
            (verdict,) = yield from verifier.judge(context, drawn)
            found += (replace(drawn[0], score=verdict.score),)
            if threshold is not None and verdict.score >= threshold:
                return Choice(found[-1], found, f"model {model}: score {verdict.score:.4g} of {threshold:.4g}")
        return Choice(found[-1], found, f"model {context.models - 1}, the last")
