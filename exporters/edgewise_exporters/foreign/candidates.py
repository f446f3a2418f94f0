"""exporters, foreign: what an attention could be: the specifications that are tried, by what a configuration says."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from edgewise.facts import Attention, Rotary

WINDOWS = ("sliding_window", "window_size", "attention_window")
THETA = ("rope_theta", "rotary_emb_base")
SHARE = ("partial_rotary_factor", "rotary_pct")
ROTATED = 16  # GroupQueryAttention rotates multiples of that, in heads of multiples of that


@dataclass(frozen=True)
class Candidate:
    """A specification, its rotary embedding, and how queries, keys and values lie in one product, if they do.

    parts: all queries, then all keys, then all values. heads: for each head of keys its queries, its key, its value.
    """

    spec: Attention
    rotary: Rotary | None
    layout: Literal["apart", "parts", "heads"]


def candidates(
    known: Attention, layer: int, config: Mapping[str, Any], *, fused: bool, rotates: bool
) -> Iterator[Candidate]:
    """The likely ones first."""
    root = known.head_dim**-0.5
    scales = dict.fromkeys((root, 1.0, root / (layer + 1), 1 / known.head_dim))
    windows: list[int | None] = [None, *(config[key] for key in WINDOWS if isinstance(config.get(key), int))]
    layouts: tuple[Literal["apart", "parts", "heads"], ...] = ("parts", "heads") if fused else ("apart",)
    rotaries: list[Rotary | None] = list(_rotaries(known, config)) if rotates else [None]
    for rotary, layout, window, scale in product(rotaries, layouts, windows, scales):
        spec = Attention(
            known.heads, known.kv_heads, known.head_dim, scale, window, rotary="global" if rotary else None
        )
        yield Candidate(spec, rotary, layout)


def _rotaries(known: Attention, config: Mapping[str, Any]) -> Iterator[Rotary]:
    """Without scaling: other types are for exporters that know the family."""
    if known.head_dim % ROTATED or config.get("rope_scaling"):
        return
    theta = next((float(config[key]) for key in THETA if key in config), 10_000.0)
    shares = [int(known.head_dim * config[key]) for key in SHARE if isinstance(config.get(key), int | float)]
    stated = [config["rotary_dim"]] if isinstance(config.get("rotary_dim"), int) else []
    for dim in dict.fromkeys(dim for dim in (*shares, *stated, known.head_dim) if dim % ROTATED == 0):
        for interleaved in (False, True):
            yield Rotary(dim, theta, interleaved=interleaved)
