"""plugins, moe: passes that make a mixture of experts smaller, or cheaper for each token.

What an expert is worth to a layer, over the tokens of a text (see `edgewise.calibration.routing`):

    reap         mean of g |f(x)| over the tokens given to it (arXiv 2510.13999)
    frequency    how many tokens are given to it
    norm         mean of |f(x)| over the tokens given to it: what it says, however loud the router lets it
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.routing import ExpertStatistics
from edgewise.errors import OptionError
from edgewise.facts import Experts
from edgewise.passes import Pass, calibration_of, context_of
from edgewise_plugins.moe.correct import correct_routers
from edgewise_plugins.moe.mixtures import mixtures, refuse_count
from edgewise_plugins.moe.remove import give_to, remove_experts
from edgewise_plugins.prune.parts import floats

logger = logging.getLogger(__name__)

Worth = Literal["reap", "frequency", "norm"]

WORTH: Mapping[Worth, Callable[[ExpertStatistics], np.ndarray]] = {
    "reap": lambda found: found.saliency,
    "frequency": lambda found: found.counts,
    "norm": lambda found: found.norms,
}


@dataclass(frozen=True)
class PruneExperts(Pass):
    """Removes experts from each mixture: a smaller bundle; tokens still go to as many experts as before.

    `keep` experts of each layer stay, by what they are `worth` on the calibration text: mean gate times output
    (`reap`), `frequency`, or the size of the output alone (`norm`). With `correct`
    gates make up for what is lost, as far as they can: routers are fitted anew. Comes before `quantize`.
    """

    name: ClassVar[str] = "prune-experts"

    keep: int
    worth: Worth = "reap"
    correct: bool = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration, found = calibration_of(model, needed_by="pass 'prune-experts'"), mixtures(model)
        floats(model, needed_by="prune-experts")
        refuse_count(found, self.keep)
        dry = context_of(model).dry
        before = model.clone() if self.correct and not dry else None
        for number, worth in self._worths(model, found, calibration).items():
            left = np.sort(np.argsort(-worth, kind="stable")[: self.keep]).tolist()
            remove_experts(model, number, left)
            gone = sorted(set(range(len(worth))) - set(left))
            logger.info("prune-experts: layer %d without experts %s", number, ", ".join(map(str, gone)))
        if before is not None:
            correct_routers(model, before, calibration)
        return ir.passes.PassResult(model, modified=True)

    def _worths(self, model: ir.Model, found: Mapping[int, Experts], calibration: Calibration) -> dict[int, np.ndarray]:
        if context_of(model).dry:
            return {number: np.arange(mixture.count)[::-1] for number, mixture in found.items()}
        statistics = calibration.statistics(model).experts
        return {number: WORTH[self.worth](statistics[number]) for number in found}


@dataclass(frozen=True)
class ActiveExperts(Pass):
    """Gives each token to fewer experts: less to compute and to read for each token; the bundle is as large."""

    name: ClassVar[str] = "active-experts"

    active: int

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for number, mixture in mixtures(model).items():
            if not 1 <= self.active <= mixture.active:
                raise OptionError(f"active: {self.active} is not from 1 to {mixture.active}, those of layer {number}")
            give_to(model, number, self.active)
        return ir.passes.PassResult(model, modified=True)
