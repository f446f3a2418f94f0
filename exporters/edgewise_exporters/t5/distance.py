"""exporters, t5: relative position biases (arXiv 1910.10683, section 2.1): a score's extra number, by distance.

Near distances have a bucket each, farther ones share buckets that grow as logarithms do. There are few distances below
the farthest, so a table holds the bucket of each.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.tensors import constant
from edgewise_exporters.decoder.builder import BATCH, INT64, SEQUENCE, TOTAL, Builder, Shape
from edgewise_exporters.decoder.shared import PAIRS, Shared

LOWEST = float(np.finfo(np.float32).min)
SOURCE = "encoder_sequence_length"
AROUND: Shape = (SOURCE, SOURCE)


def buckets(distances: NDArray[np.int64], count: int, farthest: int) -> NDArray[np.int64]:
    """The bucket of each distance from 0 on, among `count`."""
    exact = count // 2
    large = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact)) / np.log(farthest / exact)
    far = exact + (large.astype(np.float32) * np.float32(count - exact)).astype(np.int64)
    return np.where(distances < exact, distances, np.minimum(far, count - 1))


def behind(count: int, farthest: int) -> NDArray[np.int64]:
    """The buckets of keys that are 0, 1, ... `farthest` tokens before the query."""
    return buckets(np.arange(farthest + 1), count, farthest)


def around(count: int, farthest: int) -> NDArray[np.int64]:
    """The buckets of keys from `farthest` before the query to `farthest` after it: those have the second half."""
    offsets = np.arange(-farthest, farthest + 1)
    half = count // 2
    return buckets(np.abs(offsets), half, farthest) + np.where(offsets > 0, half, 0)


def masked_bias(builder: Builder, shared: Shared, table: ir.Value, numbers: NDArray[np.int64]) -> ir.Value:
    """What a decoder adds to its scores, `[batch, heads, sequence, total]`; what is not seen gets the lowest number."""
    heads, farthest = _heads(table), len(numbers) - 1
    whole: Shape = (BATCH, heads, SEQUENCE, TOTAL)

    def op(name: str, op_type: str, *inputs: ir.Value, shape: Shape, **more: Any) -> ir.Value:
        return builder.op(op_type, *inputs, name=f"decoder.relative.{name}", shape=shape, **more)

    limits = _integer(builder, 0), _integer(builder, farthest)
    distance = op("distance", "Sub", shared.queries, shared.keys, shape=PAIRS, dtype=INT64)
    near = op("near", "Clip", distance, *limits, shape=PAIRS, dtype=INT64)
    bucket = op("bucket", "Gather", _table(builder, "decoder", numbers), near, shape=PAIRS, dtype=INT64)
    found = op("found", "Gather", table, bucket, shape=(*PAIRS, heads))
    turned = op("turned", "Transpose", found, shape=(*whole, 1), perm=[0, 4, 2, 3, 1])
    bias = op("bias", "Reshape", turned, builder.integers(0, 0, 0, -1), shape=whole)
    lowest = builder.scalar(LOWEST, "decoder.relative.lowest")
    return op("masked", "Where", shared.mask(None), bias, lowest, shape=whole)


def bias_around(builder: Builder, source: ir.Value, table: ir.Value, numbers: NDArray[np.int64]) -> ir.Value:
    """What an encoder adds to its scores, `[1, heads, source, source]`."""
    heads, farthest = _heads(table), len(numbers) // 2

    def op(name: str, op_type: str, *inputs: ir.Value, shape: Shape, **more: Any) -> ir.Value:
        return builder.op(op_type, *inputs, name=f"encoder.relative.{name}", shape=shape, **more)

    length = op("shape", "Shape", source, shape=(2,), dtype=INT64)
    length = op("length", "Gather", length, _integer(builder, 1), shape=(), dtype=INT64)
    places = op("places", "Range", _integer(builder, 0), length, _integer(builder, 1), shape=(SOURCE,), dtype=INT64)
    queries = op("queries", "Unsqueeze", places, builder.integers(1), shape=(SOURCE, 1), dtype=INT64)
    offset = op("offset", "Sub", places, queries, shape=AROUND, dtype=INT64)
    moved = op("moved", "Add", offset, _integer(builder, farthest), shape=AROUND, dtype=INT64)
    near = op("near", "Clip", moved, _integer(builder, 0), _integer(builder, 2 * farthest), shape=AROUND, dtype=INT64)
    bucket = op("bucket", "Gather", _table(builder, "encoder", numbers), near, shape=AROUND, dtype=INT64)
    found = op("found", "Gather", table, bucket, shape=(*AROUND, heads))
    turned = op("turned", "Transpose", found, shape=(heads, *AROUND), perm=[2, 0, 1])
    return op("bias", "Unsqueeze", turned, builder.integers(0), shape=(1, heads, *AROUND))


def _heads(table: ir.Value) -> int:
    assert table.shape is not None
    return int(table.shape.numpy()[1])


def _integer(builder: Builder, value: int) -> ir.Value:
    return builder.initializer(constant(np.array(value, np.int64)), f"integer.{value}")


def _table(builder: Builder, side: str, numbers: NDArray[np.int64]) -> ir.Value:
    return builder.initializer(constant(numbers), f"{side}.relative.buckets")
