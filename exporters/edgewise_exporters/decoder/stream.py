"""exporters, decoder: what all layers share: the graph's inputs, attention masks and rotary tables."""

from functools import partial
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgewise.facts import Facts, Rotary
from edgewise.rotary import table
from edgewise.tensors import Streamed
from edgewise_exporters.decoder.builder import BOOL, FLOAT, INT64, Builder


class Shared:
    """Positions of queries and keys, and the masks and tables that follow from them.

    Slots are not positions: a key's position is the number of valid keys before it, so a cache may hold padding.
    """

    def __init__(self, builder: Builder, facts: Facts) -> None:
        self.builder = builder
        self.tokens = builder.input("input_ids", INT64, ("batch", "sequence"))
        self.valid = builder.input("attention_mask", INT64, ("batch", "total"))
        self.positions = builder.input("position_ids", INT64, ("batch", "sequence"))
        self.past = [self._past(i, facts) for i in range(facts.layers)]
        self.tables = {name: self._tables(name, rotary, facts) for name, rotary in facts.rotary.items()}
        self.masks: dict[int | None, ir.Value] = {None: self._causal()}

    def mask(self, window: int | None) -> ir.Value:
        """Which keys a query sees: boolean `[batch, 1, sequence, total]`."""
        if window not in self.masks:
            assert window is not None
            self.masks[window] = self._windowed(window)
        return self.masks[window]

    def _past(self, layer: int, facts: Facts) -> tuple[ir.Value, ir.Value]:
        a = facts.attention[layer]
        shape = ("batch", a.kv_heads, "past", a.head_dim)
        key, value = (self.builder.input(f"past_key_values.{layer}.{part}", FLOAT, shape) for part in ("key", "value"))
        return key, value

    def _tables(self, name: str, rotary: Rotary, facts: Facts) -> tuple[ir.Value, ir.Value]:
        cos, sin = (self._table(name, part, rotary, facts.context_length) for part in ("cos", "sin"))  # type: ignore[arg-type]
        return cos, sin

    def _table(self, name: str, kind: Literal["cos", "sin"], rotary: Rotary, context: int) -> ir.Value:
        """A table for the whole context; an input too where a session may need another one."""

        def read(start: int, stop: int) -> np.ndarray:
            return table(kind, rotary, context, start, stop)

        tensor = Streamed((context, rotary.dim // 2), FLOAT, read)
        value = self.builder.initializer(tensor, f"rotary.{name}.{kind}")
        if rotary.follows_context:
            value.shape = ir.Shape(("context", rotary.dim // 2))
            self.builder.inputs.append(value)
        return value

    def _causal(self) -> ir.Value:
        axis, ones = self.builder.integers(1), self.builder.integers(1)
        op = partial(self.builder.op, dtype=INT64)
        total = ("batch", "total")
        counted = op("CumSum", self.valid, axis, name="mask.counted", shape=total)
        places = op("Sub", counted, ones, name="mask.key_positions", shape=total)
        self.keys = op(
            "Unsqueeze", places, self.builder.integers(1, 2), name="mask.keys", shape=("batch", 1, 1, "total")
        )
        self.queries = op(
            "Unsqueeze",
            self.positions,
            self.builder.integers(1, 3),
            name="mask.queries",
            shape=("batch", 1, "sequence", 1),
        )
        valid = op(
            "Unsqueeze", self.valid, self.builder.integers(1, 2), name="mask.valid", shape=("batch", 1, 1, "total")
        )
        real = self.builder.op("Cast", valid, name="mask.real", shape=("batch", 1, 1, "total"), dtype=BOOL, to=BOOL)
        seen = self.builder.op("LessOrEqual", self.keys, self.queries, name="mask.before", shape=MASK, dtype=BOOL)
        return self.builder.op("And", seen, real, name="mask.causal", shape=MASK, dtype=BOOL)

    def _windowed(self, window: int) -> ir.Value:
        op = self.builder.op
        distance = op("Sub", self.queries, self.keys, name=f"mask.{window}.distance", shape=MASK, dtype=INT64)
        near = op("Less", distance, self.builder.integers(window), name=f"mask.{window}.near", shape=MASK, dtype=BOOL)
        return op("And", near, self.masks[None], name=f"mask.{window}", shape=MASK, dtype=BOOL)


MASK = ("batch", 1, "sequence", "total")
