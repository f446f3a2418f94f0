"""plugins, moe: experts that a token's router hardly wants are skipped, at run time, token by token.

The rule of dynamic skipping (Not All Experts are Equal, arXiv 2402.14800), for any number of active experts: those go
whose gate is below a share of the token's largest one. Thresholds are calibrated to a bound on the KL divergence.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.calibration.calibration import Calibration
from edgewise.calibration.walk import Walk
from edgewise.errors import OptionError
from edgewise.facts import Experts
from edgewise.graph import Roles, remark
from edgewise.passes import Pass, calibration_of, context_of
from edgewise_plugins.moe.kept import as_tensor, gates_of_chosen, set_threshold, skip_below, skipped, threshold_name
from edgewise_plugins.moe.mixtures import mixtures, state
from edgewise_plugins.moe.thresholds import GRID, ROUNDS, Candidate, Thresholds, keep_to

logger = logging.getLogger(__name__)

TOKENS = 4096  # of the calibration text that thresholds are measured on


@dataclass(frozen=True)
class SkipExperts(Pass):
    """Skips, token by token, active experts with a small gate: less to compute and to read; the bundle is as large.

    Skipped are experts whose gate is below a share of the token's largest gate: `threshold` in all layers, or a share
    for each layer such that most evaluations are saved while the mean KL divergence on the calibration text stays
    within `max_mean_kld`. Comes after passes that remove experts.
    """

    name: ClassVar[str] = "skip-experts"

    max_mean_kld: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.max_mean_kld is None) == (self.threshold is None):
            raise OptionError("skipping needs one of max_mean_kld, threshold")
        if self.max_mean_kld is not None and not self.max_mean_kld > 0:
            raise OptionError(f"max_mean_kld: {self.max_mean_kld} is not more than 0")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise OptionError(f"threshold: {self.threshold} is not between 0 and 1")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        several = _with_several(model)
        if self.threshold is None:
            _expect(model, several)
        skip_below(model, dict.fromkeys(several, self.threshold or 0.0))
        context = context_of(model)
        if context.dry or context.calibration is None:
            return ir.passes.PassResult(model, modified=True)
        if self.max_mean_kld is not None:
            self._calibrate(model, several, context.calibration)
        _measure(model, several, context.calibration)
        return ir.passes.PassResult(model, modified=True)

    def _calibrate(self, model: ir.Model, several: Mapping[int, Experts], calibration: Calibration) -> None:
        """Find a threshold for each layer."""
        from edgewise.quality.sensitivity import Change, sensitivity  # runs the model: more than a plan needs

        assert self.max_mean_kld is not None
        sequences, roles = calibration.part(TOKENS), Roles.of(model)

        def change(thresholds: Thresholds) -> Change:
            return {threshold_name(roles, number): as_tensor(value) for number, value in thresholds.items()}

        def losses(changes: Mapping[str, Change]) -> dict[str, float]:
            return sensitivity(model, changes, sequences, context=calibration.context, progress=calibration.progress)

        gates = _gates(model, sequences, calibration)
        alone = losses({f"{number} {value}": change({number: value}) for number in several for value in GRID[1:]})
        candidates = {
            number: [
                Candidate(value, skipped(gates[number], value), alone.get(f"{number} {value}", 0.0)) for value in GRID
            ]
            for number in several
        }
        chosen, divergence = keep_to(self.max_mean_kld, candidates, lambda some: losses({"": change(some)})[""])
        for number, value in chosen.items():
            set_threshold(model, number, value)
        logger.info(
            "skip-experts: mean KL divergence %.3g with thresholds %s",
            divergence,
            ", ".join(f"{value:g}" for value in chosen.values()),
        )
        if not any(chosen.values()):
            logger.warning(
                "skip-experts: nothing is skipped: no threshold keeps to max_mean_kld = %g", self.max_mean_kld
            )


def _expect(model: ir.Model, several: Mapping[int, Experts]) -> None:
    """Say what finding thresholds takes, for the plan of the build."""
    from edgewise.quality.sensitivity import sensitivity_cost  # whose module runs models

    calibration = calibration_of(model, needed_by="max_mean_kld of pass 'skip-experts'")
    calibration.expect(sensitivity_cost(model, len(several) * (len(GRID) - 1) + ROUNDS, calibration.shape(TOKENS)))


def _with_several(model: ir.Model) -> dict[int, Experts]:
    """The mixtures that give a token to several experts, by the size of their gates."""
    found = mixtures(model)
    for number, mixture in found.items():
        if mixture.active < 2:
            raise OptionError(f"layer {number} gives each token to one expert: there is none to skip")
        if mixture.equal:
            raise OptionError(f"the experts of layer {number} all count alike: no gate is smaller than another one")
    return found


def _gates(model: ir.Model, sequences: np.ndarray, calibration: Calibration) -> dict[int, np.ndarray]:
    with scratch() as folder:
        return gates_of_chosen(Walk(model, sequences, folder=folder, context=calibration.context))


def _measure(model: ir.Model, several: Mapping[int, Experts], calibration: Calibration) -> None:
    """State, and report, how many experts a token is given to."""
    gates, roles = _gates(model, calibration.part(TOKENS), calibration), Roles.of(model)
    saved = {}
    for number, mixture in several.items():
        value = model.graph.initializers[threshold_name(roles, number)].const_value
        assert value is not None
        saved[number] = skipped(gates[number], float(value.numpy()[0]))
        state(model, number, replace(mixture, evaluated=mixture.active - saved[number]))
    share = sum(saved.values()) / sum(mixture.active for mixture in several.values())
    sentence = f"of the experts that a token is given to, {share:.1%} are skipped on the calibration text"
    logger.info("skip-experts: %s", sentence)
    remark(model, "skipped experts", sentence)
