"""exporters, decoder: what all layers share: the graph's inputs, attention masks and rotary tables."""

from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from edgewise.facts import Facts
from edgewise.rotary import table
from edgewise.tensors import Streamed
from edgewise_exporters.decoder.builder import BATCH, BOOL, FLOAT, INT64, SEQUENCE, SLOTS, TOKENS, TOTAL, Builder, Shape

KEYS: Shape = (BATCH, 1, 1, TOTAL)
PAIRS: Shape = (BATCH, 1, SEQUENCE, TOTAL)


class Shared:
    """Positions of queries and keys, and the masks and tables that follow from them.

    Slots are not positions: a key's position is the number of valid keys before it, so a cache may hold padding.
    """

    def __init__(self, builder: Builder, facts: Facts) -> None:
        self.builder, self.facts = builder, facts
        self.tokens = builder.input("input_ids", INT64, TOKENS)
        self.valid = builder.input("attention_mask", INT64, SLOTS)
        self.positions = builder.input("position_ids", INT64, TOKENS)
        self.past = [self._past(layer) for layer in range(facts.layers)]
        self.tables = {name: (self._table(name, "cos"), self._table(name, "sin")) for name in facts.rotary}
        axes = builder.integers(1, 3)
        self.queries = self._op("queries", "Unsqueeze", self.positions, axes, shape=(BATCH, 1, SEQUENCE, 1))
        self.keys = self._key_positions()
        self.masks: dict[int | None, ir.Value] = {None: self._causal()}

    def mask(self, window: int | None) -> ir.Value:
        """Which keys a query sees: boolean `[batch, 1, sequence, total]`, one for each distinct window."""
        if window not in self.masks:
            assert window is not None
            distance = self._op(f"{window}.distance", "Sub", self.queries, self.keys, shape=PAIRS)
            limit = self.builder.integers(window)
            near = self._op(f"{window}.near", "Less", distance, limit, shape=PAIRS, dtype=BOOL)
            self.masks[window] = self._op(f"{window}", "And", near, self.masks[None], shape=PAIRS, dtype=BOOL)
        return self.masks[window]

    def _past(self, layer: int) -> tuple[ir.Value, ir.Value]:
        a = self.facts.attention[layer]
        shape = (BATCH, a.kv_heads, "past_sequence_length", a.head_dim)
        key = self.builder.input(f"past_key_values.{layer}.key", FLOAT, shape)
        return key, self.builder.input(f"past_key_values.{layer}.value", FLOAT, shape)

    def _table(self, name: str, kind: Literal["cos", "sin"]) -> ir.Value:
        """A table for the whole context; where that changes it, for the original one, and an input: a session of a
        longer context binds its own, and one that does not is refused there instead of scored wrongly."""
        rotary, context = self.facts.rotary[name], self.facts.context_length
        if rotary.follows_context:
            context = min(context, rotary.original_context)

        def read(start: int, stop: int) -> np.ndarray:
            return table(kind, rotary, context, start, stop)

        value = self.builder.initializer(Streamed((context, rotary.dim // 2), FLOAT, read), f"rotary.{name}.{kind}")
        if rotary.follows_context:
            value.shape = ir.Shape(("context", rotary.dim // 2))
            self.builder.inputs.append(value)
        return value

    def _key_positions(self) -> ir.Value:
        one, axes = self.builder.integers(1), self.builder.integers(1, 2)
        counted = self._op("counted", "CumSum", self.valid, one, shape=SLOTS)
        places = self._op("places", "Sub", counted, one, shape=SLOTS)
        return self._op("keys", "Unsqueeze", places, axes, shape=KEYS)

    def _causal(self) -> ir.Value:
        real = self._op("real", "Cast", self.valid, shape=SLOTS, dtype=BOOL, to=BOOL)
        real = self._op("valid", "Unsqueeze", real, self.builder.integers(1, 2), shape=KEYS, dtype=BOOL)
        before = self._op("before", "LessOrEqual", self.keys, self.queries, shape=PAIRS, dtype=BOOL)
        return self._op("causal", "And", before, real, shape=PAIRS, dtype=BOOL)

    def _op(self, name: str, op_type: str, *inputs: ir.Value, dtype: ir.DataType = INT64, **more: Any) -> ir.Value:
        return self.builder.op(op_type, *inputs, name=f"mask.{name}", dtype=dtype, **more)
