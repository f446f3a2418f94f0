"""targets, static: what fixed lengths decide: the rows of rotary tables, and which outputs a graph has."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import LoweringError
from edgewise.graph import get_facts
from edgewise.hidden import HIDDEN
from edgewise.passes import context_of
from edgewise.tensors import Streamed, streamed
from edgewise_targets.step import Step
from edgewise_targets.tables import KINDS, rotary_table


@dataclass(frozen=True)
class FixedTables(Step):
    """Rotary tables with a row for each position of the context, and no other; none is an input any more.

    (A graph that computes more tokens at once than the context has gets a row for each of these.)
    """

    name: ClassVar[str] = "static-tables"

    def rewrite(self, model: ir.Model) -> bool:
        context, modified = fixed_context(model), False
        rows = max(context, context_of(model).width or 0)
        for name, rotary in get_facts(model).rotary.items():
            for kind in KINDS:
                value = model.graph.initializers.get(f"rotary.{name}.{kind}")
                if value is not None and (value.is_graph_input() or streamed(value.const_value).dims[0] != rows):
                    _fix(model.graph, value, rotary_table(kind, rotary, context, rows=rows))
                    modified = True
        return modified


@dataclass(frozen=True)
class OneOutput(Step):
    """Logits of the one token that a decoding graph computes; none of a prompt, whose keys and values are all it gives.

    What only logits need goes with them: the last layer after its keys and values, the norm and the lm_head.
    """

    name: ClassVar[str] = "static-outputs"

    def rewrite(self, model: ir.Model) -> bool:
        graph, width = model.graph, context_of(model).width
        if any(value.name == HIDDEN for value in graph.outputs):
            raise LoweringError(f"a graph of fixed lengths has no output '{HIDDEN}': leave it out")
        logits = [value for value in graph.outputs if value.name == "logits"]
        if width == 1 or not logits:
            return False
        graph.outputs.remove(logits[0])
        return True


def fixed_context(model: ir.Model) -> int:
    """Tokens that the cache of a graph of fixed lengths holds. Raises LoweringError where lengths are not fixed."""
    build = context_of(model)
    if build.width is None or build.context is None:
        raise LoweringError(
            "'lower-static' makes graphs of fixed lengths, and this target states none: [needs.static] prefill = 128"
        )
    return build.context


def _fix(graph: ir.Graph, value: ir.Value, rows: Streamed) -> None:
    if value.is_graph_input():
        graph.inputs.remove(value)
    rows.name = value.name
    value.const_value, value.shape = rows, ir.Shape(rows.dims)
