"""Pruned, distilled and quantized in one recipe, against quantization alone: bytes, divergence, speed, as a plot.

    python benchmarks/pareto.py --work /tmp/edgewise-benchmarks
    python benchmarks/pareto.py --work /tmp/edgewise-benchmarks --speed 5 --docs docs/smaller.md

The model is examples/pycoder. The plot is written beside the page, as PNG and as SVG (the extra `plot`). Each point is
kept in the work folder; speeds are measured with --speed, of what is built already.
"""

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantization import hardware, insert
from recipes import GPTQ, layers, learning, width
from shapes import DEMO
from variants import Case, Figures, Steps, built, judged, markdown, paces, speeds_of

from edgewise.ledger.variant import Pace

MARK = "pareto"
PRUNINGS: Mapping[str, Steps] = {
    "75 % of the neurons": (width(0.75),),
    "50 % of the neurons": (width(0.5),),
    "25 % of the neurons": (width(0.25),),
    "5 layers": (layers(5),),
    "4 layers": (layers(4),),
    "3 layers": (layers(3),),
}
LEARNED = {  # at which rates
    "50 % of the neurons": 3e-4,
    "25 % of the neurons": 5e-4,
    "4 layers": 1e-3,
    "3 layers": 1e-3,
}
UNPRUNED: Mapping[str, Steps] = {
    "float32": (),
    "int8": (("quantize", {"method": "gptq", "bits": 8}),),
    "int4": (GPTQ,),
    "int2": (("quantize", {"method": "gptq", "bits": 2, "block_size": 32}),),
}


@dataclass(frozen=True)
class Point:
    """A case on the plot, in one of its series."""

    case: Case
    series: str
    label: str
    found: Figures
    pace: Pace | None


def series(train: Path, steps: int) -> dict[str, list[tuple[str, Case]]]:
    """By name, the cases with their labels."""
    return {
        "unpruned": [
            (name, Case(f"unpruned, {name}", recipe, calibrated=bool(recipe))) for name, recipe in UNPRUNED.items()
        ],
        "pruned, int4": [(name, Case(f"{name}, int4", (*how, GPTQ))) for name, how in PRUNINGS.items()],
        "pruned, distilled, int4": [
            (name, Case(f"{name}, distilled, int4", (*PRUNINGS[name], learning(train, steps, rate), GPTQ)))
            for name, rate in LEARNED.items()
        ],
    }


def front(points: Sequence[Point]) -> set[str]:
    """The names of those that no other one beats in bytes and in divergence."""
    return {
        one.case.name
        for one in points
        if not any(
            other.found.bytes <= one.found.bytes and other.found.mean_kld < one.found.mean_kld for other in points
        )
    }


def row(point: Point, best: Collection[str]) -> dict[str, str]:
    found = point.found
    return {
        "what": point.case.name,
        "bytes": f"{found.bytes:,}",
        "mean KLD": f"{found.mean_kld:.4f}",
        "p99 KLD": f"{found.p99_kld:.3f}",
        "top-1": f"{found.top1:.1%}",
        **speeds_of(point.pace),
        "on the front": "yes" if point.case.name in best else "",
    }


def plotted(chosen: Mapping[str, list[tuple[str, Case]]], work: Path, speeds: Mapping[str, Pace]) -> list[Point]:
    """All points, those with most bytes first."""
    points = []
    for name, cases in chosen.items():
        labels = {case.name: label.replace(" of the", "") for label, case in cases}
        for case, found in judged([case for _, case in cases], work):
            points.append(Point(case, name, labels[case.name], found, speeds.get(case.name)))
    return sorted(points, key=lambda point: -point.found.bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", type=Path, default=DEMO / "calibration.txt", help="what models learn from")
    parser.add_argument("--steps", type=int, default=100, help="of learning, 2,048 tokens each")
    parser.add_argument("--no-build", action="store_true", help="show what is built already, and nothing else")
    parser.add_argument("--speed", type=int, default=0, metavar="RUNS", help="the same, and measure its speed")
    parser.add_argument("--docs", type=Path, help="the page whose table is replaced; the plot is put beside it")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    chosen = series(options.train, options.steps)
    if options.no_build or options.speed:
        there = built([case for cases in chosen.values() for _, case in cases], work)
        chosen = {name: [each for each in cases if each[1] in there] for name, cases in chosen.items()}
    speeds = paces([case for cases in chosen.values() for _, case in cases], work, runs=options.speed)
    points = plotted(chosen, work, speeds)
    said = f"Speeds in tokens a second: medians of runs in turn on {hardware()}, a thread for each core."
    text = "\n".join([*([said, ""] if speeds else []), *markdown([row(point, front(points)) for point in points])])
    print(text)
    if options.docs:
        from pareto_plot import draw

        insert(options.docs, text, MARK)
        draw(points, front(points), options.docs.with_name("pareto"))


if __name__ == "__main__":
    main()
