"""Mixtures with fewer experts, with fewer that are computed, and made of dense models: bytes, divergence, speed.

    python benchmarks/experts.py --mixture FOLDER --work /tmp/edgewise-benchmarks --docs docs/experts.md

FOLDER is a checkpoint with 8 experts a layer, of which 2 are active; the dense model is examples/pycoder. Passes see
calibration.txt, figures are on heldout.txt. A run that was stopped goes on with what it made in the work folder.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import onnx_ir as ir
from graphs import LENGTH, TOKENS, Graphs
from quantization import hardware, insert
from shapes import DEMO, shaped, write_checkpoint
from turns import DECODE, PREFILL, ROUNDS, THREADS, speeds

import edgewise
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.facts import Facts
from edgewise.graph import get_facts
from edgewise.passes import Pass
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.sizes import sizes_of, total
from edgewise_plugins.moe.mixtures import mixtures
from edgewise_plugins.moe.remove import remove_experts

MARK = "experts"
SEEDS = 5
KEEP = 6
BOUND = 0.018
SHAPE, SHARES = "experts-4-of-16", (0.7,)

Steps = Sequence[tuple[str, Mapping[str, Any]]]

FORMATS: Mapping[str, Steps] = {"float32": [], "int4": [("quantize", {"block_size": 128})]}

FEWER: Mapping[str, Steps] = {
    "by REAP": [("prune-experts", {"keep": KEEP})],
    "by frequency": [("prune-experts", {"keep": KEEP, "worth": "frequency"})],
    "by norm": [("prune-experts", {"keep": KEEP, "worth": "norm"})],
    "by REAP, router corrected": [("prune-experts", {"keep": KEEP, "correct": True})],
    "by frequency, router corrected": [("prune-experts", {"keep": KEEP, "worth": "frequency", "correct": True})],
    "merged": [("merge-experts", {"keep": KEEP})],
    "merged, router corrected": [("merge-experts", {"keep": KEEP, "correct": True})],
}
SKIPPING: Mapping[str, Steps] = {
    "all": [],
    "a threshold for all layers": [("skip-experts", {"threshold": 0.5})],
    "a threshold for each layer": [("skip-experts", {"max_mean_kld": BOUND})],
    "1 of 2 active": [("active-experts", {"active": 1})],
    "6 of 8 experts, merged": [("merge-experts", {"keep": KEEP})],
}
DENSE: Mapping[str, Steps] = {
    "the dense model": [],
    "100 % of the neurons, as experts": [("dense-to-moe", {"experts": 8, "shared": 2, "active": 6})],
    "75 % active": [("dense-to-moe", {"experts": 8, "shared": 3, "active": 3})],
    "75 % of the neurons left": [("prune-width", {"keep": 0.75, "multiple": 32})],
    "50 % active": [("dense-to-moe", {"experts": 8, "shared": 2, "active": 2})],
    "50 % of the neurons left": [("prune-width", {"keep": 0.5, "multiple": 32})],
}


@dataclass(frozen=True)
class Found:
    """One variant: bytes of its float weights, experts that a token is given to, figures on the held-out text."""

    bytes: int
    active: float
    mean_kld: float
    p99_kld: float
    top1: float


def measure(graphs: Graphs, name: str, make: Callable[[], ir.Model]) -> Found:
    """Unless that has been done."""
    kept = graphs.work / f"{graphs.checkpoint.name} {name}.json".replace(" ", "-").replace("%", "percent")
    if not kept.exists():
        model = make()
        found = graphs.distance(model)
        size, used = total(sizes_of(model)).bytes, active(get_facts(model))
        measured = Found(size, used, found.mean_kld, found.p99_kld, found.top1)
        kept.write_text(json.dumps(asdict(measured)), "utf-8")
    return Found(**json.loads(kept.read_text("utf-8")))


def passes(steps: Steps) -> list[Pass]:
    return [registry().passes.get(name)(**options) for name, options in steps]


def of_steps(graphs: Graphs, name: str, steps: Steps) -> Found:
    return measure(graphs, name, lambda: graphs.graph(passes(steps)))


def at_random(graphs: Graphs, seed: int) -> Found:
    def make() -> ir.Model:
        model, generator = graphs.graph(), np.random.default_rng(seed)
        for number, mixture in mixtures(model).items():
            remove_experts(model, number, np.sort(generator.permutation(mixture.count)[:KEEP]).tolist())
        return model

    return measure(graphs, f"random {seed}", make)


def fewer(graphs: Graphs) -> Iterator[str]:
    """8 experts to 6."""
    yield "| 6 of 8 experts | bytes | mean KLD | of random | p99 KLD | top-1 |\n|---|---:|---:|---:|---:|---:|"
    random = [at_random(graphs, seed) for seed in range(SEEDS)]
    base = mean(found.mean_kld for found in random)
    low, high = (limit(found.mean_kld for found in random) for limit in (min, max))
    name = f"at random, mean of {SEEDS} ({low:.3f} to {high:.3f})"
    found = Found(*(mean(getattr(each, part) for each in random) for part in Found.__annotations__))
    for label, each in [(name, found), *((name, of_steps(graphs, name, steps)) for name, steps in FEWER.items())]:
        share = f"{each.mean_kld / base:.0%}"
        yield f"| {label} | {each.bytes:,.0f} | {each.mean_kld:.4f} | {share} | {each.p99_kld:.3f} | {each.top1:.1%} |"


def bundle(graphs: Graphs, name: str, steps: Steps) -> Path:
    """Built, unless that has been done."""
    path = graphs.work / f"{graphs.checkpoint.name} {name}.edge".replace(" ", "-").replace("%", "percent")
    if not path.exists():
        recipe = Recipe(tuple(RecipeStep(step, options) for step, options in steps))
        text = CalibrationText(DEMO / "calibration.txt", tokens=TOKENS, length=LENGTH)
        needed = text if {step for step, _ in steps} - {"active-experts", "quantize"} else None
        edgewise.build(graphs.checkpoint, output=path, recipe=recipe, calibration=needed, load_check=False)
    return path


def timed(graphs: Graphs, variants: Mapping[str, Steps]) -> dict[str, list[str]]:
    """Cells of a table: decode and prefill in float32, and in int4."""
    paths = {
        (name, form): bundle(graphs, f"{name} {form}", [*steps, *last])
        for name, steps in variants.items()
        for form, last in FORMATS.items()
    }
    found = speeds({" ".join(key): path for key, path in paths.items()}, graphs.sequences)
    return {
        name: [f"{found[f'{name} {form}'][which]:,.0f}" for form in FORMATS for which in (1, 0)] for name in variants
    }


def with_speeds(
    graphs: Graphs, variants: Mapping[str, Steps], first: str, cells: Callable[[Found], list[str]]
) -> Iterator[str]:
    """A table of variants with what they cost and how fast they are."""
    yield f"| {first} | mean KLD | p99 KLD | top-1 | decode | prefill | decode, int4 | prefill, int4 |"
    yield "|---" * first.count("|") + "|---" + "|---:" * 7 + "|"
    fast = timed(graphs, variants)
    for name, steps in variants.items():
        found = of_steps(graphs, name, steps)
        figures = [f"{found.mean_kld:.4f}", f"{found.p99_kld:.3f}", f"{found.top1:.1%}"]
        yield f"| {' | '.join([name, *cells(found), *figures, *fast[name]])} |"


def skipping(graphs: Graphs) -> Iterator[str]:
    def cells(found: Found) -> list[str]:
        return [f"{found.bytes:,}", f"{1 - found.active / 2:.1%}"]

    return with_speeds(graphs, SKIPPING, "2 of 8 experts a token | bytes | saved", cells)


def usual_size(work: Path) -> Iterator[str]:
    """Speeds at several thresholds, of random weights in a shape whose experts take their time."""
    checkpoint = write_checkpoint(shaped(SHAPE), work / SHAPE)
    graphs = Graphs(checkpoint, work)
    variants: dict[str, Steps] = {"all": []}
    variants |= {f"above {share} of the largest": [("skip-experts", {"threshold": share})] for share in SHARES}
    fast = timed(graphs, variants)
    yield f"| gates ({SHAPE}, random weights) | saved | decode | prefill | decode, int4 | prefill, int4 |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, steps in variants.items():
        facts = Bundle.open(bundle(graphs, f"{name} float32", steps)).manifest.language_model
        yield f"| {' | '.join([name, f'{1 - active(facts) / 4:.1%}', *fast[name]])} |"


def active(facts: Facts) -> float:
    """Experts that a token is given to in a layer, on average."""
    found = [mixture.evaluated or mixture.active for mixture in facts.experts if mixture]
    return mean(found) if found else 0.0


def dense(graphs: Graphs) -> Iterator[str]:
    return with_speeds(graphs, DENSE, "examples/pycoder | bytes", lambda found: [f"{found.bytes:,}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mixture", type=Path, required=True, help="a checkpoint with 8 experts, of which 2 are active"
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=Path, help="the page whose tables are replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    mixture, demo = Graphs(options.mixture, options.work), Graphs(DEMO, options.work)
    measured_on = (
        f"Measured on {hardware()}, with {THREADS} threads: decode of {DECODE} tokens of the held-out text\n"
        f"and prefill of {PREFILL}, in tokens a second, medians of {ROUNDS} runs in turn."
    )
    done: list[str] = []
    for lines in (fewer(mixture), skipping(mixture), dense(demo), usual_size(options.work)):
        done.append("\n".join(_shown(lines)))
        if options.docs:
            insert(options.docs, "\n\n".join([*done, measured_on]), MARK)


def _shown(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        print(line, flush=True)
        yield line


if __name__ == "__main__":
    main()
