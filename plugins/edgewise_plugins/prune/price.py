"""plugins, prune: what a model would weigh after some steps, and take for a token: the rest of the build, planned."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgewise.bundle.manifest import CPU
from edgewise.errors import RecipeError
from edgewise.passes import BuildContext, Pass, context_of
from edgewise.planner.count import count
from edgewise.planner.outlook import PROMPT
from edgewise.planner.speed import Rates
from edgewise.sizes import sizes_of, total
from edgewise.steps import apply, resolve


@dataclass(frozen=True)
class Price:
    """bytes: of all weights. time: of a token, in seconds where the target's profile says; otherwise operations."""

    bytes: int
    time: float

    def saved(self, other: "Price", whole: "Price") -> float:
        """What `other` is cheaper by: the shares of bytes and of time, of those that the whole model takes."""
        return (self.bytes - other.bytes) / whole.bytes + (self.time - other.time) / whole.time


def price(model: ir.Model, steps: Sequence[Pass], *, in_the_end: bool) -> Price:
    """What steps, those that follow in the recipe and the target's lowering would make of a model. Reads no weight.

    in_the_end: bytes are those after the steps that follow; otherwise before them.
    """
    build = _planned(context_of(model))
    changed = apply(model.clone(), steps, build, error=RecipeError)
    now = total(sizes_of(changed)).bytes
    finished = apply(changed, build.following, build, error=RecipeError)
    return Price(total(sizes_of(finished)).bytes if in_the_end else now, _time(finished, build))


def _planned(context: BuildContext) -> BuildContext:
    """A context in which steps leave no trace of what they expect or change beside the graph."""
    calibration, companions = copy.copy(context.calibration), context.companions
    if calibration:
        calibration.costs = []
    if companions:
        companions = replace(companions, changed=dict(companions.changed))
    return replace(context, calibration=calibration, companions=companions, dry=True, chosen=[])


def _time(model: ir.Model, build: BuildContext) -> float:
    """Of a token that is decoded after a prompt."""
    if (target := build.target) is None:
        return count(model).operations
    fixed = target.needs.static
    lowering = resolve(target.lowering, where=f"target '{target.name}': lowering")
    lowered = apply(model.clone(), lowering, replace(build, width=1 if fixed else None), error=RecipeError)
    work = count(lowered, capacity=(build.context or 0) if fixed else 0, width=1 if fixed else 0)
    rates = Rates(target.hardware, target.numerics, packed=target.providers[0].name == CPU.name)
    return rates.step(work, tokens=1, held=PROMPT).total if rates.known else work.operations
