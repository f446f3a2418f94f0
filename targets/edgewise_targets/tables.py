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

KINDS: tuple[Literal["cos", "sin"], ...] = ("cos", "sin")


@dataclass(frozen=True)
class ContextTables(Step):
    """Tables for the context that the bundle is built for, where those of the graph are of a shorter one."""

    name: ClassVar[str] = "context-tables"

    def rewrite(self, model: ir.Model) -> bool:
        context, modified = context_of(model).context, False
        for name, rotary in get_facts(model).rotary.items():
            for kind in KINDS:
                value = model.graph.initializers.get(f"rotary.{name}.{kind}")
                if context and value and rotary.follows_context and streamed(value.const_value).dims[0] < context:
                    value.const_value = rotary_table(kind, rotary, context, rows=context)
                    modified = True
        return modified


def rotary_table(kind: Literal["cos", "sin"], rotary: Rotary, context: int, *, rows: int) -> Streamed:
    """A table `[rows, dim / 2]`, float32, for a context; equal ones of two graphs are written once."""

    def read(start: int, stop: int) -> np.ndarray:
        return table(kind, rotary, context, start, stop)

    # Rotary holds a mapping, so its text stands for it.
    return Streamed((rows, rotary.dim // 2), ir.DataType.FLOAT, read, storage=(str(rotary), kind, context, rows))
