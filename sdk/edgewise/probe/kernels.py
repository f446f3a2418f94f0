"""sdk, probe: operations a second of each kind of product, one token at a time and many at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgewise.probe import graphs
from edgewise.probe.graphs import HIDDEN, INNER, Heads, Product
from edgewise.probe.timing import bound, opened, seconds
from edgewise.quantized import Format

MANY = 128  # tokens: as many as a session computes of a prompt at a time
PAST = 1920  # tokens that the measured attention looks back on
LAYERS, WIDTH = 80, 512  # of the model that shows what operators take by themselves


@dataclass(frozen=True)
class Rate:
    """Operations a second; a multiply-add is two."""

    decode: float
    prefill: float


@dataclass(frozen=True)
class Kind:
    """A kind of product, and how many matrices of it are more than caches hold."""

    product: Product
    matrices: int


KINDS: Mapping[str, Kind] = {
    **{f"int4 block {size}": Kind(graphs.blocks(Format(4, size, False)), 24) for size in (32, 64, 128)},
    **{f"int8 block {size}": Kind(graphs.blocks(Format(8, size, False)), 16) for size in (32, 128)},
    **{f"int2 block {size}": Kind(graphs.blocks(Format(2, size, False)), 24) for size in (64, 128)},
    "int8 rows": Kind(graphs.int8_rows, 16),
    "float32": Kind(graphs.floats, 6),
}


def product_rate(kind: Kind, *, threads: int, budget: float, matrices: int | None = None) -> Rate:
    """How fast a kind of product is here."""
    count = matrices or kind.matrices
    session = opened(graphs.products(count, kind.product), threads=threads)
    operations = 2 * HIDDEN * INNER * count

    def rate(tokens: int) -> float:
        x = np.random.default_rng(0).standard_normal((tokens, HIDDEN), np.float32)
        run = bound(session, {"x": x}, {"y": np.zeros_like(x)})
        return tokens * operations / seconds(run, threads=threads, budget=budget)

    decode, many = rate(1), rate(MANY)
    return Rate(decode, further(decode, many))


def further(decode: float, many: float) -> float:
    """Of the tokens after the first, which takes as long as it does alone: what plans add up is then what was found."""
    return max(many, (MANY - 1) / max(MANY / many - 1 / decode, 1e-30))


def attention_rate(*, threads: int, budget: float, shape: Heads | None = None, past: int = PAST) -> Rate:
    """How fast attention is here: its products with what is held."""
    shape = shape or Heads()
    session = opened(graphs.attention(shape), threads=threads)
    random = np.random.default_rng(0)
    size = (1, shape.kv_heads, past + MANY, shape.head_dim)
    held = {name: random.standard_normal(size, np.float32) for names in graphs.caches(shape) for name in names}

    def rate(tokens: int) -> float:
        width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        x = random.standard_normal((1, tokens, width), np.float32)
        lengths = {"seqlens_k": np.array([past + tokens - 1], np.int32), "total": np.array(past + tokens, np.int32)}
        outputs = {
            f"y.{i}": np.zeros((1, tokens, shape.heads * shape.head_dim), np.float32) for i in range(shape.layers)
        }
        outputs |= {f"{name}.present": array for name, array in held.items()}
        taken = seconds(bound(session, {"x": x, **lengths, **held}, outputs), threads=threads, budget=budget)
        return 4 * shape.heads * shape.head_dim * tokens * (past + tokens) * shape.layers / taken

    return Rate(rate(1), rate(MANY))


def dispatch_seconds(rate: Rate, *, threads: int, budget: float) -> float:
    """What an operator takes beside its operations, on average in the layers of a model.

    `rate` is that of products in int4 with blocks of 128, whose operations are taken off.
    """
    product = KINDS["int4 block 128"].product
    session = opened(graphs.layers(LAYERS, WIDTH, 2 * WIDTH, product), threads=threads)
    x = np.random.default_rng(0).standard_normal((1, 1, WIDTH), np.float32)
    taken = seconds(bound(session, {"x": x}, {"y": np.zeros_like(x)}), threads=threads, budget=budget)
    operations = LAYERS * 2 * 2 * WIDTH * 2 * WIDTH
    return max(taken - operations / rate.decode, 0.01 * taken) / (5 * LAYERS)
