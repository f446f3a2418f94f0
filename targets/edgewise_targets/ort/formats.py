"""targets, ort: formats that ONNX Runtime accepts and then computes a hundred times slower, refused by name."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.bundle.manifest import CPU
from edgewise.errors import LoweringError
from edgewise.lint.finding import provider
from edgewise.lint.slow import slow
from edgewise.passes import context_of
from edgewise_targets.step import Step


@dataclass(frozen=True)
class RefuseSlowFormats(Step):
    """Raises LoweringError for a quantized matrix in a format that falls off a processor's fast path."""

    name: ClassVar[str] = "ort-refuse-slow-formats"

    def rewrite(self, model: ir.Model) -> bool:
        target = context_of(model).target
        if target is None or provider(target) == CPU.name:
            refuse_slow_formats(model)
        return False


def refuse_slow_formats(model: ir.Model) -> None:
    """Raises LoweringError, which names the weight, what is wrong with its format, and what to choose."""
    for found in slow(model):
        raise LoweringError(str(found))
