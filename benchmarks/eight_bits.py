"""What 8 bits cost a matrix: the divergence that `mix` computes from that of 4 bits, beside the one that is measured.

    python benchmarks/eight_bits.py [--docs docs/quantization.md]

The model is examples/pycoder, on its calibration.txt. Each item of a mix is quantized alone, as the pass does it.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from quantization import insert_lines
from shapes import DEMO

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.texts import CalibrationText
from edgewise.exporters import export_graph
from edgewise.passes import BuildContext
from edgewise.prepare import open_checkpoint
from edgewise.quantized import Format
from edgewise.text.tokenizer import Tokenizer
from edgewise_plugins.mix import EIGHT_BY_FOUR, Mix, items_of
from edgewise_plugins.quantize.rules import BlockSize, Method

MARK = "eight_bits"
CASES: tuple[tuple[Method, BlockSize], ...] = (("nearest", 32), ("nearest", 128), ("gptq", 128))


def ratios(method: Method, block_size: BlockSize) -> tuple[np.ndarray, float, float]:
    """Of each item what is computed, by what is measured; and the sums of both, in nats a token."""
    model = export_graph(open_checkpoint(DEMO))
    calibration = Calibration(CalibrationText(DEMO / "calibration.txt"), Tokenizer.load(DEMO))
    model.meta["edgewise"] = BuildContext(calibration=calibration)
    items = items_of(model)
    mix = Mix(max_bytes=1, method=method, block_size=block_size)
    found = mix.measured(model, items, {bits: Format(bits, block_size, False) for bits in (4, 8)})
    computed = np.array([found[name, 4] * EIGHT_BY_FOUR for name in items])
    measured = np.array([found[name, 8] for name in items])
    return computed / measured, math.fsum(computed), math.fsum(measured)


def row(method: Method, block_size: BlockSize) -> str:
    each, computed, measured = ratios(method, block_size)
    low, middle, high = np.quantile(each, (0, 0.5, 1))
    return (
        f"| {method} | {block_size} | {len(each)} | {measured:.2e} | {computed:.2e} | "
        f"{middle:.2f} | {low:.2f} to {high:.2f} |"
    )


def report() -> str:
    lines = [
        "| method | blocks of | items | sum measured | sum computed | computed / measured, median | range |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for method, block_size in CASES:
        lines.append(row(method, block_size))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    insert_lines([report()], options.docs, MARK)


if __name__ == "__main__":
    main()
