"""sdk: what a pass is: an onnx_ir pass whose fields are its options."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from edgewise.errors import RecipeError
from edgewise.options import check

if TYPE_CHECKING:
    from edgewise.calibration.calibration import Calibration
    from edgewise.companions import Companions
    from edgewise.target import Target


@dataclass(frozen=True)
class BuildContext:
    """What a build knows beyond the graph; a pass finds it with `context_of(model)`."""

    target: "Target | None" = None
    context: int | None = None  # tokens that a session gets unless it asks for more or fewer
    calibration: "Calibration | None" = None  # where the user gave a text
    width: int | None = None  # tokens in a run of this graph, where lengths are fixed; its cache holds `context`
    margin: int | None = None  # there: positions that a cache keeps beyond a layer's window; None: the whole context
    reference: ir.Model | None = None  # the canonical graph of the checkpoint, before any step; of tokens that are left
    companions: "Companions | None" = None  # tokenizer and configurations
    dry: bool = False  # a plan is made: formats count, values do not, and a pass that measures need not
    following: tuple["Pass", ...] = ()  # the steps after the one that asks
    chosen: list[tuple["Pass", tuple["Pass", ...]]] = field(default_factory=list)  # a step, and those it stood for

    def done(self, step: "Pass") -> tuple["Pass", ...]:
        """What a step did, as steps that would do it again."""
        return next((steps for chooser, steps in self.chosen if chooser is step), (step,))


@dataclass(frozen=True)
class Pass(ir.passes.InPlacePass):
    """One step of a recipe. Its fields are its options: recipe schema, error text and bundle record in one.

    >>> @dataclass(frozen=True)
    ... class Scale(Pass):
    ...     '''Multiplies every lm_head weight.'''
    ...     name: ClassVar[str] = "scale"
    ...     factor: float = 1.0
    ...     def call(self, model: ir.Model) -> ir.passes.PassResult: ...
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check(self)


def context_of(model: ir.Model) -> BuildContext:
    """What the build that this pass is part of knows; an empty context outside of a build."""
    context = model.meta.get("edgewise")
    return context if isinstance(context, BuildContext) else BuildContext()


def calibration_of(model: ir.Model, *, needed_by: str) -> "Calibration":
    """The calibration of the build that this pass is part of. Raises RecipeError where the user gave no text."""
    if calibration := context_of(model).calibration:
        return calibration
    raise RecipeError(f"{needed_by} needs a calibration text: --calibration-text FILE")
