"""targets, static: the lowering, step after step."""

from dataclasses import dataclass
from typing import ClassVar

from edgewise.passes import Pass
from edgewise_targets.appended import AppendedCache
from edgewise_targets.dialect import Dialect, Operators
from edgewise_targets.static.lengths import FixedTables, OneOutput
from edgewise_targets.static.norms import HeadNorms
from edgewise_targets.static.operators import OPERATORS, RefuseExperts
from edgewise_targets.static.products import QuantizedProducts


@dataclass(frozen=True)
class LowerStatic(Dialect):
    """Rewrites the canonical graph into one of fixed lengths, of standard operators, for a compiler such as QNN's.

    It reads a cache of fixed capacity and gives keys and values of the new tokens. How many tokens it computes is the
    build's (`needs.static` of the target): one, with its logits, or a piece of a prompt, without any.
    """

    name: ClassVar[str] = "lower-static"
    remaining: ClassVar[Operators] = OPERATORS

    def steps(self) -> tuple[Pass, ...]:
        return (
            RefuseExperts(),
            FixedTables(),
            OneOutput(),
            AppendedCache(),
            HeadNorms(),
            QuantizedProducts(),
        )
