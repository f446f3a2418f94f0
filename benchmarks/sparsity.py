"""What zeros among the weights cost and save: divergence, bytes, bytes of an archive, tokens a second.

    python benchmarks/sparsity.py --work /tmp/edgewise-benchmarks --docs docs/sparsity.md

The model is examples/pycoder; passes see calibration.txt, figures are on heldout.txt. Archives are by zlib, as in zip.
Speeds are medians of runs in turn, as a ratio to the model of the same format without zeros. A run that was stopped
goes on with the bundles in the work folder.
"""

import argparse
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from quantization import insert_lines, sequences_of
from shapes import DEMO

import edgewise
from edgewise.bench.speed import measure
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.quality.compare import compare
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.runner import Runner

MARK = "sparsity"
TOKENS, HELD_OUT, LENGTH, ROUNDS, DECODE = 32_768, 16_384, 512, 7, 128
HEADING = "| zeros | method | format | bytes | in an archive | decode | mean KLD | p99 KLD | top-1 |"
INT4 = ("quantize", {"bits": 4, "method": "gptq"})

Step = tuple[str, Mapping[str, Any]]
METHODS = ("magnitude", "wanda", "sparsegpt")
KINDS: Mapping[str, Mapping[str, Any]] = {"50 %": {"sparsity": 0.5}, "2:4": {"pattern": "2:4"}}


def variants() -> Iterator[tuple[str, str, str, tuple[Step, ...]]]:
    """What is zero, by which method, in which format, and the steps that make it."""
    for form, after in {"float32": (), "int4": (INT4,)}.items():
        yield "none", "", form, after
        for kind, options in KINDS.items():
            for method in METHODS if form == "float32" else ("sparsegpt",):
                yield kind, method, form, (("sparsify", {"method": method, **options}), *after)


def built(name: str, steps: tuple[Step, ...], work: Path) -> Bundle:
    """The bundle, unless it is there."""
    path = work / f"sparsity-{name}.edge"
    if path.exists():
        return Bundle.open(path)
    recipe = Recipe(tuple(RecipeStep(step, options) for step, options in steps))
    text = CalibrationText(DEMO / "calibration.txt", tokens=TOKENS, length=LENGTH)
    calibrated = any(options.get("method") in ("wanda", "sparsegpt", "gptq") for _, options in steps)
    return edgewise.build(DEMO, output=path, recipe=recipe, calibration=text if calibrated else None)


def speeds(bundles: Mapping[str, Bundle]) -> dict[str, list[float]]:
    """Decoded tokens a second, in turn."""
    found: dict[str, list[float]] = {name: [] for name in bundles}
    with ExitStack() as stack:
        runners = {name: stack.enter_context(Runner.open(bundle.path)) for name, bundle in bundles.items()}
        for _ in range(ROUNDS):
            for name, runner in runners.items():
                found[name].append(measure(runner, prefill=1, decode=DECODE, runs=1).decode.mean)
    return found


def weights(bundle: Bundle) -> list[Path]:
    return [bundle.path / name for name in bundle.manifest.files if name.endswith(".onnx_data")]


def archived(path: Path) -> int:
    return len(zlib.compress(path.read_bytes(), 6))


def table(work: Path) -> Iterator[str]:
    yield HEADING
    yield "|---|---|---|---:|---:|---:|---:|---:|---:|"
    cases = {
        "-".join(filter(None, (kind.split()[0], method, form))).replace(":", ""): (kind, method, form, steps)
        for kind, method, form, steps in variants()
    }
    bundles = {name: built(name, steps, work) for name, (_, _, _, steps) in cases.items()}
    rates, sequences = speeds(bundles), sequences_of("heldout.txt", HELD_OUT)
    for name, (kind, method, form, _) in cases.items():
        dense, distance = rates[f"none-{form}"], compare(bundles[name].path, DEMO, sequences)
        ratio = median(ours / other for ours, other in zip(rates[name], dense, strict=True))
        stored, packed = (sum(map(size, weights(bundles[name]))) for size in (lambda p: p.stat().st_size, archived))
        row = f"| {kind} | {method} | {form} | {stored:,} | {packed:,} | {ratio:.2f} x | {distance.mean_kld:.4f} "
        yield row + f"| {distance.p99_kld:.3f} | {distance.top1:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=Path, help="the page whose table is replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    insert_lines(table(options.work), options.docs, MARK)


if __name__ == "__main__":
    main()
