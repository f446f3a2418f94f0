"""plugins, prune: how far to cut in layers, heads and neurons, so that a budget of bytes is kept: by measuring.

From the whole model on, one notch more on the axis where the KL divergence grows least for what is saved: the share of
bytes plus the share of the target's time for a token. Each cut is measured together with all others so far, on a part
of the calibration text. What is too much in the end is given back, and neurons fill the room that is left.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import ClassVar

import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.calibration.calibration import Calibration
from edgewise.errors import OptionError, RecipeError
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.quality.sensitivity import sensitivity_cost
from edgewise.steps import describe
from edgewise_plugins.prune.cuts import Axes, Cut
from edgewise_plugins.prune.depth import TOKENS
from edgewise_plugins.prune.eliminate import check_damping
from edgewise_plugins.prune.lost import Losses, levels
from edgewise_plugins.prune.parts import check_multiple, check_share, floats
from edgewise_plugins.prune.price import Price, price

logger = logging.getLogger(__name__)

Prices = Callable[[Cut], Price]
Measure = Callable[[Sequence[Cut]], list[float]]


@dataclass(frozen=True)
class Prune(Pass):
    """Removes layers, heads and neurons until a budget of bytes is kept, as many of each as measuring says.

    `keep` is the share of the bytes of all weights that stays; `to_bytes` bounds the bytes that they take in the end,
    after the steps that follow. What is chosen is recorded as steps `prune-layers`, `prune-heads` and
    `prune-width`. Needs a calibration text. Comes before `quantize`.
    """

    name: ClassVar[str] = "prune"

    keep: float | None = None
    to_bytes: int | None = None
    multiple: int = 128
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping)
        if (self.keep is None) == (self.to_bytes is None):
            raise OptionError("'prune' needs one budget: keep or to_bytes")
        if self.keep is not None:
            check_share(self.keep)
        if self.to_bytes is not None and self.to_bytes < 1:
            raise OptionError(f"to_bytes: {self.to_bytes} is not 1 or more")
        check_multiple(self.multiple)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'prune'")
        floats(model, needed_by="prune")
        axes = Axes.of(model, multiple=self.multiple, damping=self.damping)
        prices: Prices = cache(lambda cut: price(model, axes.steps(cut), in_the_end=self.keep is None))
        goal = self._goal(axes, prices)
        guessed = search(axes, goal, prices, _guess(axes))
        calibration.expect_statistics(model, gram=True)
        calibration.expect(sensitivity_cost(model, axes.measured(guessed), calibration.shape(TOKENS)))
        dry = context_of(model).dry
        cut = guessed if dry else self._measured(model, axes, goal, prices, calibration)
        steps = axes.steps(axes.filled(cut, lambda finer: prices(finer).bytes <= goal))
        if not dry:
            context_of(model).chosen.append((self, steps))
            logger.info("prune: %s", ", then ".join(map(describe, steps)) or "nothing")
        for step in steps:
            step(model)
        return ir.passes.PassResult(model, modified=bool(steps))

    def _goal(self, axes: Axes, prices: Prices) -> int:
        """Bytes. Raises RecipeError for fewer than can be reached."""
        whole, least = prices(axes.whole).bytes, prices(axes.least).bytes
        goal = self.to_bytes if self.to_bytes is not None else int((self.keep or 1) * whole)
        if goal < least:
            asked = f"to_bytes = {goal:,}" if self.to_bytes is not None else f"keep = {self.keep}"
            rest = f"1 layer, {axes.least.heads:.0%} of its heads, {axes.least.width:.1%} of its neurons"
            raise RecipeError(
                f"{asked} cannot be reached by pruning: the smallest is {least:,} of {whole:,} bytes ({rest})"
            )
        return goal

    def _measured(self, model: ir.Model, axes: Axes, goal: int, prices: Prices, calibration: Calibration) -> Cut:
        statistics = calibration.statistics(model, gram=True)
        with scratch() as folder:
            losses = Losses(model, calibration, *levels(model, axes, statistics, folder))
            cut = search(axes, goal, prices, losses.of)
            (lost,) = losses.of([cut])
        logger.info("prune: estimated mean KL divergence %.3g at %s bytes", lost, f"{prices(cut).bytes:,}")
        return cut


def search(axes: Axes, goal: int, prices: Prices, measure: Measure) -> Cut:
    """The cut that keeps to so many bytes, notch by notch."""
    cut, lost, whole = axes.whole, 0.0, prices(axes.whole)
    while prices(cut).bytes > goal:
        further = list(axes.beside(cut, 1))
        costs = dict(zip(further, measure(further), strict=True))
        cut = min(further, key=lambda c: _worth(costs[c] - lost, prices(cut).saved(prices(c), whole)))
        lost = costs[cut]
    while back := [other for other in axes.beside(cut, -1) if prices(other).bytes <= goal]:
        costs = dict(zip(back, measure(back), strict=True))
        cut = min(back, key=lambda c: costs[c])
    return cut


def _worth(lost: float, saved: float) -> float:
    return lost / saved if saved > 0 else inf


def _guess(axes: Axes) -> Measure:
    """For a plan, which measures nothing: all axes are cut alike."""

    def guess(cuts: Sequence[Cut]) -> list[float]:
        return [(1 - c.layers / axes.layers) ** 2 + (1 - c.heads) ** 2 + (1 - c.width) ** 2 for c in cuts]

    return guess
