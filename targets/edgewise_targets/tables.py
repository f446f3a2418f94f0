"""targets: rotary tables that follow the context, as a session of the bundle's own context needs them.

A session may bind others. A runtime that cannot (onnxruntime-genai) gets these, and the same tokens.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgewise.facts import Rotary
from edgewise.graph import get_facts
from edgewise.passes import context_of
from edgewise.rotary import table
from edgewise.tensors import Streamed, streamed
from edgewise_targets.step import Step


@dataclass(frozen=True)
class ContextTables(Step):
    """Tables for the context that the bundle is built for, where those of the graph are of a shorter one."""

    name: ClassVar[str] = "context-tables"

    def rewrite(self, model: ir.Model) -> bool:
        context, modified = context_of(model).context, False
        for name, rotary in get_facts(model).rotary.items():
            for kind in ("cos", "sin"):
                value = model.graph.initializers.get(f"rotary.{name}.{kind}")
                if context and value and rotary.follows_context and streamed(value.const_value).dims[0] < context:
                    value.const_value = _table(kind, rotary, context)
                    modified = True
        return modified


def _table(kind: Literal["cos", "sin"], rotary: Rotary, context: int) -> Streamed:
    def read(start: int, stop: int) -> np.ndarray:
        return table(kind, rotary, context, start, stop)

    return Streamed((context, rotary.dim // 2), ir.DataType.FLOAT, read)
