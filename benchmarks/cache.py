"""Milliseconds of one layer's attention with keys and values in float32 and in int8, a scale for each channel.

    python benchmarks/cache.py

One call of ONNX Runtime's GroupQueryAttention on one thread, its cache written in place; medians, each kind in turn.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edgewise.runtime.ort import in_place, open_graph

SHAPES = {"Qwen2.5-0.5B": (14, 2, 64), "Llama-3.2-1B": (32, 8, 64)}  # heads, kv_heads, head_dim
CASES = {(1023, 1): 60, (4094, 1): 40, (0, 256): 6, (2048, 256): 4}  # tokens before, new tokens: runs
STEP = np.float32(0.03)

Arrays = dict[str, np.ndarray]


def arrays(shape: tuple[int, int, int], past: int, new: int, *, int8: bool) -> tuple[Arrays, Arrays]:
    """The inputs of the layer, by name and in order, and the cache among them."""
    heads, kv_heads, dim = shape
    total, random = past + new, np.random.default_rng(0)
    counts = {"query": heads, "key": kv_heads, "value": kv_heads}
    tokens = {name: random.standard_normal((1, new, n * dim)).astype(np.float32) for name, n in counts.items()}
    codes = random.integers(-100, 100, (2, 1, kv_heads, total, dim)).astype(np.int8)
    pasts = dict(zip(("past_key", "past_value"), codes if int8 else codes * STEP, strict=True))
    lengths = {"last": np.array([total - 1], np.int32), "total": np.array([total], np.int32)}
    tables = {"cos": np.ones((total, dim // 2), np.float32), "sin": np.zeros((total, dim // 2), np.float32)}
    scales = {f"{part}_scale": np.full(kv_heads * dim, STEP) for part in ("key", "value") if int8}
    return {**tokens, **pasts, **lengths, **tables, **scales}, pasts


def graph(shape: tuple[int, int, int], feeds: Arrays, *, int8: bool) -> bytes:
    """The layer as the dialect 'ort' writes it."""
    names = list(feeds)
    attributes: dict[str, Any] = {"num_heads": shape[0], "kv_num_heads": shape[1], "scale": 1.0, "do_rotary": 1}
    if int8:
        names[9:9] = ["", "", ""]
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    outputs = ["output", "present_key", "present_value"]
    node = onnx.helper.make_node("GroupQueryAttention", names, outputs, domain="com.microsoft", **attributes)
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    cache = kinds["past_key"]
    body = onnx.helper.make_graph(
        [node],
        "layer",
        [onnx.helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in feeds.items()],
        [
            onnx.helper.make_tensor_value_info(name, kind, None)
            for name, kind in zip(outputs, (TensorProto.FLOAT, cache, cache), strict=True)
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 23), onnx.helper.make_opsetid("com.microsoft", 1)]
    content: bytes = onnx.helper.make_model(body, opset_imports=opsets, ir_version=10).SerializeToString()
    return content


def layer(shape: tuple[int, int, int], past: int, new: int, *, int8: bool) -> Callable[[], None]:
    feeds, pasts = arrays(shape, past, new, int8=int8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        path.write_bytes(graph(shape, feeds, int8=int8))
        session = open_graph(path, threads=1)
    binding, values = session.io_binding(), {name: in_place(array) for name, array in feeds.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("output")
    for name in pasts:
        binding.bind_ortvalue_output(name.replace("past", "present"), values[name])

    def run(held: Arrays = feeds) -> None:
        session.run_with_iobinding(binding)

    return run


def milliseconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    print(f"{'layer of':15}{'before':>8}{'new':>6}{'float32 ms':>12}{'int8 ms':>10}{'float32 / int8':>16}")
    for name, shape in SHAPES.items():
        for (past, new), count in CASES.items():
            ways = [layer(shape, past, new, int8=int8) for int8 in (False, True)]
            runs = [[milliseconds(way) for way in ways] for _ in range(count)]
            floats, ints = (median(column) for column in zip(*runs, strict=True))
            print(f"{name:15}{past:8}{new:6}{floats:12.3f}{ints:10.3f}{floats / ints:16.2f}")


if __name__ == "__main__":
    main()
