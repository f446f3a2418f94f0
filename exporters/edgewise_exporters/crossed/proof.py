"""exporters, crossed: traced graphs and the one that takes their place, run on the same random tokens."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.crossing import SOURCE_IDS
from edgewise.facts import Facts
from edgewise.graph import get_facts
from edgewise.runtime.ort import open_graph
from edgewise.writer import write_model

TOLERANCE = 1e-4  # of the largest score, or of 1 where that is larger: two orders of sums in float32
SOURCE, ANSWER = 19, 7  # tokens: not as many as traces are made with

Arrays = dict[str, NDArray[Any]]
Tokens = NDArray[np.int64]


def some_tokens(vocabulary: int) -> tuple[Tokens, Tokens]:
    """A source and an answer."""
    rng = np.random.default_rng(0)
    return rng.integers(0, vocabulary, (1, SOURCE)), rng.integers(0, vocabulary, (1, ANSWER + 1))


def traced_scores(encoder: ir.Model, first: ir.Model, step: ir.Model, source: Tokens, answer: Tokens) -> NDArray[Any]:
    """After each token of an answer, `[1, tokens, vocabulary]`: of all but the last in one step, and of that one."""
    mask = np.ones_like(source)
    hidden = _run(encoder, [{"input_ids": source, "attention_mask": mask}])[0]["last_hidden_state"]
    sides = {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}
    begun = _run(first, [{**sides, "input_ids": answer[:, :-1]}])[0]
    past = {f"past_key_values.{name.removeprefix('present.')}": array for name, array in begun.items()}
    ended = _run(step, [{**sides, **past, "input_ids": answer[:, -1:]}])[0]
    return np.concatenate([begun["logits"], ended["logits"]], axis=1)


def scores(model: ir.Model, source: Tokens, answer: Tokens, *, width: int) -> NDArray[Any]:
    """The same of a whole graph, `width` tokens in a step."""
    facts, count = get_facts(model), answer.shape[1]
    feeds = [_feeds(source, answer[:, : start + width], width) for start in range(0, count, width)]
    return np.concatenate([step["logits"] for step in _run(model, feeds, _empty(facts))], axis=1)


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest, as a part of the largest score above 1."""
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def _feeds(source: Tokens, answer: Tokens, new: int) -> Arrays:
    """What a whole graph reads, but for its past."""
    count = answer.shape[1]
    places = np.arange(count - new, count)[None]
    mask = np.ones_like(answer)
    return {"input_ids": answer[:, -new:], "attention_mask": mask, "position_ids": places, SOURCE_IDS: source}


def _empty(facts: Facts) -> Arrays:
    """Keys and values of no token."""
    shapes = [(1, a.kv_heads, 0, a.head_dim) for a in facts.attention]
    return {
        f"past_key_values.{layer}.{part}": np.zeros(shape, np.float32)
        for layer, shape in enumerate(shapes)
        for part in ("key", "value")
    }


def _run(model: ir.Model, steps: list[Arrays], past: Mapping[str, NDArray[Any]] | None = None) -> list[Arrays]:
    """All outputs of each step by name; what it gives of keys and values is the past of the next."""
    found, held = list[Arrays](), dict(past or {})
    with tempfile.TemporaryDirectory() as folder:
        write_model(model, Path(folder) / "graph.onnx")
        graph = open_graph(Path(folder) / "graph.onnx")
        names = [value.name for value in graph.get_outputs()]
        wanted = {value.name for value in graph.get_inputs()}
        for feeds in steps:
            given = {name: array for name, array in (feeds | held).items() if name in wanted}
            found.append(dict(zip(names, graph.run(names, given), strict=True)))
            held = {name.replace("present", "past_key_values"): found[-1][name] for name in names if "present" in name}
    return found
