"""sdk: what a pass is: an onnx_ir pass whose fields are its options."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from edgewise.options import check

if TYPE_CHECKING:
    from edgewise.target import Target


@dataclass(frozen=True)
class BuildContext:
    """What a build knows beyond the graph; a pass finds it with `context_of(model)`."""

    target: "Target | None" = None
    context: int | None = None  # tokens that a session gets unless it asks for more or fewer


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
