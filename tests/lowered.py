"""tests: a session of a lowered graph: compact rows, a cache of fixed capacity that is written in place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgewise.facts import Facts
from edgewise.rotary import tables
from parity import Logits, Row

INT64 = np.int64
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8, "tensor(int64)": INT64}


class Lowered:
    """Past and present are one buffer, of the graph's own type; floats begin as NaN, so that reading too early shows.

    `keep` is what goes into `logits_to_keep`; None leaves that input alone.
    """

    def __init__(self, graph: ort.InferenceSession, facts: Facts, context: int, *, keep: int | None = None) -> None:
        self.graph, self.facts, self.context, self.keep = graph, facts, context, keep
        self.lengths = np.zeros(0, INT64)
        inputs = (*graph.get_inputs(), *graph.get_overridable_initializers())
        self.types = {value.name: DTYPES[value.type] for value in inputs}
        self.cache: dict[str, ort.OrtValue] = {}
        self.tables = {
            f"rotary.{name}.{part}": _value(values.astype(self.types[f"rotary.{name}.{part}"], copy=False))
            for name, rotary in facts.rotary.items()
            if rotary.follows_context
            for part, values in zip(("cos", "sin"), tables(rotary, context), strict=True)
        }

    def __call__(self, rows: Sequence[Row]) -> list[Logits]:
        if not self.cache:
            self._empty(len(rows))
        lengths = np.array([len(row) for row in rows])
        tokens = np.zeros((len(rows), max(lengths)), INT64)
        for row, new in enumerate(rows):
            tokens[row, : len(new)] = new
        positions = np.minimum(self.lengths[:, None] + np.arange(max(lengths)), self.context - 1)
        self.lengths += lengths
        valid = (np.arange(max(self.lengths)) < self.lengths[:, None]).astype(INT64)
        feeds = {"input_ids": tokens, "attention_mask": valid, "position_ids": positions}
        logits = self._run({name: array for name, array in feeds.items() if name in self.types})
        return [logits[row, :length] for row, length in enumerate(lengths)]

    def _run(self, feeds: dict[str, NDArray[np.int64]]) -> Logits:
        kept = feeds["input_ids"].shape[1]
        if self.keep is not None:
            feeds["logits_to_keep"] = np.array([self.keep])
            kept = min(self.keep or kept, kept)
        logits = np.full((len(self.lengths), kept, self.facts.vocab_size), np.nan, np.float32)
        binding = self.graph.io_binding()
        for name, value in {**self.tables, **{name: _value(array) for name, array in feeds.items()}}.items():
            binding.bind_ortvalue_input(name, value)
        for name, buffer in self.cache.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", buffer)
            binding.bind_ortvalue_output(f"present.{name}", buffer)
        binding.bind_ortvalue_output("logits", _value(logits))
        self.graph.run_with_iobinding(binding)
        return logits

    def _empty(self, rows: int) -> None:
        self.lengths = np.zeros(rows, INT64)
        for layer, a in enumerate(self.facts.attention):
            for part in ("key", "value"):
                shape = (rows, a.kv_heads, self.context, a.head_dim)
                dtype = self.types[f"past_key_values.{layer}.{part}"]
                empty = 0 if dtype == np.int8 else np.nan
                self.cache[f"{layer}.{part}"] = _value(np.full(shape, empty, dtype))


def _value(array: NDArray[Any]) -> ort.OrtValue:
    """The array itself, not a copy."""
    return ort.OrtValue.ortvalue_from_numpy(array)
