"""tests: a session of a lowered graph: compact rows, a cache of fixed capacity that is written in place."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgewise.facts import Facts
from edgewise.rotary import tables
from parity import Logits, Row

INT64 = np.int64


class Lowered:
    """Past and present are one buffer, which begins as NaN: a slot that is read before it was written shows.

    `keep` is what goes into `logits_to_keep`; None leaves that input alone.
    """

    def __init__(self, graph: ort.InferenceSession, facts: Facts, context: int, *, keep: int | None = None) -> None:
        self.graph, self.facts, self.context, self.keep = graph, facts, context, keep
        self.lengths = np.zeros(0, INT64)
        self.cache: dict[str, ort.OrtValue] = {}
        self.tables = {
            f"rotary.{name}.{part}": _value(values)
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
        self.lengths += lengths
        valid = (np.arange(max(self.lengths)) < self.lengths[:, None]).astype(INT64)
        logits = self._run({"input_ids": tokens, "attention_mask": valid})
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
                self.cache[f"{layer}.{part}"] = _value(np.full(shape, np.nan, np.float32))


def _value(array: NDArray[np.float32] | NDArray[np.int64]) -> ort.OrtValue:
    """The array itself, not a copy."""
    return ort.OrtValue.ortvalue_from_numpy(array)
