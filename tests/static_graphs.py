"""tests: a session of two graphs of fixed lengths: prompts in padded pieces without logits, then token by token."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from appended import GARBAGE, bias
from edgewise.facts import Facts
from parity import Logits, Row


class Static:
    """Gives the logits of the last token of a call only: nothing else has any."""

    def __init__(self, prompts: ort.InferenceSession, decode: ort.InferenceSession, facts: Facts) -> None:
        self.prompts, self.decode, self.facts = prompts, decode, facts
        self.width = _shape(prompts, "input_ids")[1]
        self.capacity = _shape(decode, "past_key_values.0.key")[2]
        self.length = 0
        self.cache = {
            f"past_key_values.{layer}.{part}": np.full((1, a.kv_heads, self.capacity, a.head_dim), GARBAGE, np.float32)
            for layer, a in enumerate(facts.attention)
            for part in ("key", "value")
        }

    def __call__(self, rows: Sequence[Row]) -> list[Logits]:
        (row,) = rows
        tokens = np.asarray(row, np.int64)
        for start in range(0, len(tokens) - 1, self.width):
            self._run(self.prompts, tokens[start : min(start + self.width, len(tokens) - 1)])
        return [self._run(self.decode, tokens[-1:])["logits"][0]]

    def _run(self, graph: ort.InferenceSession, tokens: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        width, start, stop = _shape(graph, "input_ids")[1], self.length, self.length + len(tokens)
        padded = np.zeros((1, width), np.int64)
        padded[0, : len(tokens)] = tokens
        positions = np.minimum(start + np.arange(width), self.capacity - 1)[None]
        feeds: dict[str, NDArray[Any]] = {"input_ids": padded, "position_ids": positions, **self.cache}
        for a in self.facts.attention:
            name = "attention_bias" if a.window is None else f"attention_bias.{a.window}"
            feeds[name] = bias(start, width, self.capacity, a.window)
        known = {value.name for value in graph.get_inputs()}
        given = graph.run(None, {name: value for name, value in feeds.items() if name in known})
        results = dict(zip((output.name for output in graph.get_outputs()), given, strict=True))
        for name, buffer in self.cache.items():
            new = results[name.replace("past_key_values", "present")]
            buffer[:, :, start:stop] = new[:, :, : len(tokens)]
        self.length = stop
        return results


def _shape(graph: ort.InferenceSession, name: str) -> list[int]:
    (shape,) = (value.shape for value in graph.get_inputs() if value.name == name)
    return [int(size) for size in shape]
