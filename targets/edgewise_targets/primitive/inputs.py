"""targets, primitive: what goes in and out, as the lengths of the graph want it, and no input with a default."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.passes import context_of
from edgewise_targets.ort.inputs import KEEP, KeepLogits
from edgewise_targets.static.lengths import FixedTables, OneOutput
from edgewise_targets.step import Step
from edgewise_targets.tables import ContextTables


@dataclass(frozen=True)
class ScoredTokens(Step):
    """The tokens that get logits: so many last ones as the caller says, or where lengths are fixed one, or none."""

    name: ClassVar[str] = "primitive-scored-tokens"

    def rewrite(self, model: ir.Model) -> bool:
        step = KeepLogits() if context_of(model).width is None else OneOutput()
        return step.rewrite(model)


@dataclass(frozen=True)
class ConstantTables(Step):
    """Rotary tables as the bundle's own context wants them; where lengths are fixed, no longer than that."""

    name: ClassVar[str] = "primitive-tables"

    def rewrite(self, model: ir.Model) -> bool:
        step = ContextTables() if context_of(model).width is None else FixedTables()
        return step.rewrite(model)


@dataclass(frozen=True)
class PlainInputs(Step):
    """`logits_to_keep` has to be given, and rotary tables are constants: OpenVINO and others know nothing between."""

    name: ClassVar[str] = "primitive-inputs"

    def rewrite(self, model: ir.Model) -> bool:
        graph = model.graph
        both = [value for value in graph.inputs if value.name in graph.initializers]
        for value in both:
            if value.name == KEEP:
                del graph.initializers[KEEP]
                value.const_value = None
            else:
                graph.inputs.remove(value)
        return bool(both)
