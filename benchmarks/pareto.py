"""Pruned, distilled and quantized in one recipe, against quantization alone: bytes, divergence, speed, as a plot.

    python benchmarks/pareto.py --work /tmp/edgewise-benchmarks
    python benchmarks/pareto.py --work /tmp/edgewise-benchmarks --speed 5 --docs docs/smaller.md

The model is examples/pycoder. The plot is written beside the page, as PNG and as SVG (the extra `plot`). Each point is
kept in the work folder; speeds are measured with --speed, of what is built already.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantization import hardware, insert
from recipes import GPTQ, layers, learning, width
from shapes import DEMO
from variants import Case, Figures, Steps, judged, paces

from edgewise.ledger.variant import Pace

MARK = "pareto"
HEADING = """\
| what | bytes | mean KLD | p99 KLD | top-1 | decode | prefill | on the front |
|---|---:|---:|---:|---:|---:|---:|---|"""

PRUNINGS: Mapping[str, Steps] = {
    "75 % of the neurons": (width(0.75),),
    "50 % of the neurons": (width(0.5),),
    "25 % of the neurons": (width(0.25),),
    "5 layers": (layers(5),),
    "4 layers": (layers(4),),
    "3 layers": (layers(3),),
}
LEARNED = {"75 % of the neurons": 1e-4, "50 % of the neurons": 3e-4, "3 layers": 1e-3}  # at which rates
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


def rows(points: Sequence[Point]) -> Iterator[str]:
    best = front(points)
    for point in sorted(points, key=lambda point: -point.found.bytes):
        found, pace = point.found, point.pace
        cells = [
            point.case.name,
            f"{found.bytes:,}",
            f"{found.mean_kld:.4f}",
            f"{found.p99_kld:.3f}",
            f"{found.top1:.1%}",
            *((f"{pace.decode:,.0f}", f"{pace.prefill:,.0f}") if pace else ("", "")),
            "yes" if point.case.name in best else "",
        ]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", type=Path, default=DEMO / "calibration.txt", help="what models learn from")
    parser.add_argument("--steps", type=int, default=100, help="of learning, 2,048 tokens each")
    parser.add_argument("--only", help="build the cases whose names hold this, and stop there")
    parser.add_argument("--speed", type=int, default=0, metavar="RUNS", help="measure the speed of what is built")
    parser.add_argument("--docs", type=Path, help="the page whose table is replaced; the plot is put beside it")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    chosen = series(options.train, options.steps)
    everything = [case for cases in chosen.values() for _, case in cases]
    if options.only is not None:
        list(judged([case for case in everything if options.only in case.name], options.work))
        return
    speeds = paces(everything, options.work, runs=options.speed)
    points = []
    for name, cases in chosen.items():
        labels = {case.name: label for label, case in cases}
        for case, found in judged([case for _, case in cases], options.work):
            points.append(Point(case, name, labels[case.name].replace(" of the", ""), found, speeds.get(case.name)))
    said = f"Speeds in tokens a second: medians of runs in turn on {hardware()}, one thread for each core."
    text = "\n".join([said, "", HEADING, *rows(points)])
    print(text)
    if options.docs:
        from pareto_plot import draw

        insert(options.docs, text, MARK)
        draw(points, front(points), options.docs.with_name("pareto"))


if __name__ == "__main__":
    main()
