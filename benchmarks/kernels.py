"""What the parts of quantization take: products of a token, sums of second moments, rounding to nearest.

    python benchmarks/kernels.py [--docs docs/quantization.md]

Products: MatMulNBits of a matrix of 65536 x 2048, more than caches hold, with one token, on one thread, with
activations in int8 (accuracy level 4) and in floats (0). Sums: x'x of 2,048 tokens, on all cores. Processor time or
wall time, the best of several.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from quantization import hardware, insert_lines

from edgewise.calibration.gram import add_gram
from edgewise.graph import IR_VERSION
from edgewise.quantized import Format
from edgewise.tensors import constant
from edgewise_plugins.quantize.blocks import quantize_rows
from edgewise_plugins.quantize.nearest import nearest

ROWS, COLUMNS = 65536, 2048
PRODUCTS = ((2, 128, 4), (4, 128, 4), (4, 32, 4), (4, 128, 0), (8, 128, 4))
WIDTHS = (896, 4864)
TOKENS, RUNS = 2048, 8
MARK = "kernels"


def best(clock: Callable[[], float], work: Callable[[], object], runs: int = RUNS) -> float:
    """Seconds of the fastest of several runs, after one that is not counted."""
    taken = []
    for _ in range(runs + 1):
        started = clock()
        work()
        taken.append(clock() - started)
    return min(taken[1:])


def product_ns(form: Format, level: int) -> float:
    """Nanoseconds for each weight of a product with one token."""
    weights = np.random.default_rng(0).standard_normal((ROWS, COLUMNS), np.float32)
    block = quantize_rows(nearest, constant(weights, name="w"), form, 0, ROWS)
    assert block.zero_points is not None
    arrays = {"packed": block.packed, "scales": block.scales.reshape(-1), "zeros": block.zero_points.reshape(-1)}
    shape = {"K": COLUMNS, "N": ROWS, "bits": form.bits, "block_size": form.block_size, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", *arrays], ["y"], domain="com.microsoft")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in shape.items())
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None]) for name in "xy"]
    weights_in = [
        helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape, a.tobytes(), raw=True)
        for name, a in arrays.items()
    ]
    graph = helper.make_graph([node], "product", ends[:1], ends[1:], weights_in)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, COLUMNS), np.float32)
    return 1e9 * best(time.process_time, lambda: session.run(None, {"x": x})) / weights.size


def sums(width: int) -> tuple[float, float]:
    """GFLOP/s of second moments, ours and NumPy's, counting the operations of one triangle."""
    x = np.random.default_rng(0).standard_normal((TOKENS, width), np.float32)
    total = np.zeros((width, width), np.float32)
    operations = TOKENS * width * (width + 1)
    ours = best(time.perf_counter, lambda: add_gram(total, x), 8)
    return operations / ours / 1e9, operations / best(time.perf_counter, lambda: x.T @ x, 8) / 1e9


def rounding() -> tuple[float, float]:
    """GB/s of float32 weights that are rounded to int4, on one core, and that are only copied."""
    weights = constant(np.random.default_rng(0).standard_normal((4096, 4096), np.float32), name="w")
    form, array = Format(4, 128, False), weights.read(0, 4096)
    ours = best(time.process_time, lambda: quantize_rows(nearest, weights, form, 0, 4096), 5)
    return array.nbytes / ours / 1e9, array.nbytes / best(time.process_time, array.copy, 5) / 1e9


def report() -> str:
    lines = [
        f"Measured on {hardware()}, onnxruntime {ort.__version__}.",
        "",
        "| a product with one token, one thread | ns a weight |",
        "|---|---:|",
    ]
    for bits, block, level in PRODUCTS:
        said = "int8" if level == 4 else "float32"
        ns = product_ns(Format(bits, block, False), level)
        lines.append(f"| {bits} bits, blocks of {block}, activations in {said} | {ns:.3f} |")
        print(lines[-1], flush=True)
    lines += ["", "| second moments of 2,048 tokens, all cores | GFLOP/s | NumPy |", "|---|---:|---:|"]
    for width in WIDTHS:
        ours, numpy = sums(width)
        lines.append(f"| {width:,} features | {ours:.0f} | {numpy:.0f} |")
        print(lines[-1], flush=True)
    rounded, copied = rounding()
    return "\n".join(
        [
            *lines,
            "",
            f"Round to nearest takes in {rounded:.1f} GB of float32 weights a second of one core; a copy of them, "
            f"{copied:.1f} GB.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    insert_lines([report()], options.docs, MARK)


if __name__ == "__main__":
    main()
