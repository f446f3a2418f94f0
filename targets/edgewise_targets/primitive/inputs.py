"""targets, primitive: no input has a default: OpenVINO and others take an input, or a constant, and nothing between."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise_targets.ort.inputs import KEEP
from edgewise_targets.step import Step


@dataclass(frozen=True)
class PlainInputs(Step):
    """`logits_to_keep` has to be given; rotary tables that follow the context are those of the bundle's own."""

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
