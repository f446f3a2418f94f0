"""sdk, runtime: what a graph takes and gives, by the inputs and outputs that it really has."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import BundleError
from edgewise.facts import Facts
from edgewise.options import known
from edgewise.runtime.element import DTYPES

INPUT_IDS = "input_ids"
KEEP = "logits_to_keep"
HIDDEN = "hidden_states"
BIAS = "attention_bias"
POSITIONS = "position_ids"
MASK = "attention_mask"


@dataclass(frozen=True)
class CacheTensor:
    """The keys, or the values, of one layer: the two names that a graph has for them."""

    past: str
    present: str
    heads: int
    dim: int
    dtype: np.dtype[Any]
    slots: int = 0  # positions of its buffer, where that is fixed; 0: as many as a session wants
    window: int | None = None  # its buffer is a ring, for a layer that looks back so many; None: it holds all

    def kept(self, count: int) -> int:
        """Positions that go on from so many tokens need, the last ones."""
        return count if self.window is None else min(count, self.window - 1)


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a decoder.

    Past and present are one buffer, which the graph writes in place; or it `appends`: it reads the buffer, and gives
    keys and values of the new tokens. With `biases` it is told by one for each window (None: all) what a token may see;
    without, how many positions of the buffer are held by the length of the attention mask.
    """

    cache: tuple[CacheTensor, ...]
    appends: bool
    biases: Mapping[str, int | None]  # windows by the names of inputs
    inputs: frozenset[str]  # those that can be left out among them
    outputs: frozenset[str]
    ids: np.dtype[Any]  # of tokens and positions
    width: int  # tokens of a run; 0: any number

    @property
    def fits(self) -> object:
        """What graphs that share a cache have in common."""
        return self.cache, self.appends, bool(self.biases)


def read_signature(graph: Any, facts: Facts, path: Path) -> Signature:
    """What a session has to allocate and to bind. Raises BundleError for a graph that is no decoder of these facts."""
    inputs = {value.name: value for value in graph.get_inputs()}
    optional = {value.name for value in graph.get_overridable_initializers()}
    biases = {name: _window(name) for name in inputs if name.partition(".")[0] == BIAS}
    cache = _cache(inputs, facts, path, fixed=bool(biases))
    present = next((value for value in graph.get_outputs() if value.name == cache[0].present), None)
    appends = present is not None and present.shape[2] == inputs["input_ids"].shape[1]  # as many as tokens
    if not appends and KEEP not in optional:
        raise BundleError(f"{path}: the graph has no optional input '{KEEP}'; build the bundle with this edgewise")
    return Signature(
        cache,
        appends,
        biases,
        frozenset(inputs) | frozenset(optional),
        frozenset(value.name for value in graph.get_outputs()),
        np.dtype(np.int32 if inputs[INPUT_IDS].type == "tensor(int32)" else np.int64),
        width=_length(inputs[INPUT_IDS].shape[1]),
    )


def _window(name: str) -> int | None:
    window = name.partition(".")[2]
    return int(window) if window else None


def _length(dimension: object) -> int:
    """What a graph says about one of its lengths; 0 where that is free."""
    return dimension if isinstance(dimension, int) else 0


def _cache(inputs: Mapping[str, Any], facts: Facts, path: Path, *, fixed: bool) -> tuple[CacheTensor, ...]:
    """`fixed`: whether positions of the buffers may be, as numbers."""
    found = []
    for layer, attention in enumerate(facts.attention):
        for kind in ("key", "value"):
            past = f"past_key_values.{layer}.{kind}"
            stated = inputs[past].type if past in inputs else "missing"
            if stated not in DTYPES:
                raise BundleError(f"{path}: input '{past}' is {stated}; known: {known(DTYPES)}")
            present, dtype = f"present.{layer}.{kind}", DTYPES[stated]
            slots = _length(inputs[past].shape[2]) if fixed else 0
            if attention.ring and slots != attention.ring:
                raise BundleError(
                    f"{path}: input '{past}' has {slots} positions, and the facts say {attention.ring}; "
                    "build the bundle again"
                )
            window = attention.window if attention.ring else None
            found.append(CacheTensor(past, present, attention.kv_heads, attention.head_dim, dtype, slots, window))
    return tuple(found)
