"""tests: a session of a graph with the appended cache: the caller keeps what the graph gives, and who sees what."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgewise.facts import Facts
from parity import Logits, Row, following

MASKED = -10_000.0
GARBAGE = 7.0  # in slots that nothing was written to


class Appended:
    """Each row has a cache of its own, as a run is one sequence.

    `keep` is what goes into `logits_to_keep`: so many last positions are scored; 0: all.
    """

    def __init__(
        self, graph: ort.InferenceSession, facts: Facts, context: int, *, capacity: int = 0, keep: int = 0
    ) -> None:
        self.graph, self.facts, self.capacity, self.keep = graph, facts, capacity or context, keep
        self.rows: list[SingleRow] = []
        self.tables = following(facts, context)

    def __call__(self, rows: Sequence[Row]) -> list[Logits]:
        if not self.rows:
            self.rows = [SingleRow(self) for _ in rows]
        return [cache.append(np.asarray(row, np.int64)) for cache, row in zip(self.rows, rows, strict=True)]


class SingleRow:
    """The cache of one sequence: slots are filled in order."""

    def __init__(self, session: Appended) -> None:
        self.session, self.length = session, 0
        self.cache = {
            f"{layer}.{part}": np.full((1, a.kv_heads, session.capacity, a.head_dim), GARBAGE, np.float32)
            for layer, a in enumerate(session.facts.attention)
            for part in ("key", "value")
        }

    def append(self, tokens: NDArray[np.int64]) -> Logits:
        start, stop = self.length, self.length + len(tokens)
        feeds: dict[str, NDArray[Any]] = {"input_ids": tokens[None], "position_ids": np.arange(start, stop)[None]}
        for a in self.session.facts.attention:
            name = "attention_bias" if a.window is None else f"attention_bias.{a.window}"
            feeds[name] = bias(start, len(tokens), self.session.capacity, a.window)
        feeds["logits_to_keep"] = np.array([self.session.keep])
        caches = {f"past_key_values.{name}": values for name, values in self.cache.items()}
        graph = self.session.graph
        known = {value.name for value in (*graph.get_inputs(), *graph.get_overridable_initializers())}
        everything = {**feeds, **caches, **self.session.tables}
        given = {name: value for name, value in everything.items() if name in known}
        results = dict(zip((output.name for output in graph.get_outputs()), graph.run(None, given), strict=True))
        for name, values in self.cache.items():
            values[:, :, start:stop] = results[f"present.{name}"]
        self.length = stop
        logits: Logits = results["logits"][0] if "logits" in results else np.zeros((0, 0), np.float32)
        return logits


def bias(length: int, new: int, capacity: int, window: int | None) -> NDArray[np.float32]:
    """`[1, 1, new, capacity + new]`: 0 where a query may look, for a cache whose first `length` slots are filled."""
    queries = length + np.arange(new)[:, None]
    keys = np.concatenate([np.arange(capacity), length + np.arange(new)])[None]
    held = np.concatenate([np.arange(capacity) < length, np.ones(new, bool)])[None]
    seen = held & (keys <= queries)
    if window is not None:
        seen &= queries - keys < window
    return np.where(seen, 0.0, MASKED).astype(np.float32)[None, None]
