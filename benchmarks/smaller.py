"""What smaller models cost and save: bytes, operations, speed, and divergence from the checkpoint.

    python benchmarks/smaller.py --work /tmp/edgewise-benchmarks --experts CHECKPOINT
    python benchmarks/smaller.py --work /tmp/edgewise-benchmarks --experts CHECKPOINT --speed 5 --docs docs/smaller.md

The model is examples/pycoder, and for mixtures the checkpoint that --experts names; passes see calibration.txt, figures
are on heldout.txt, and on the English of LICENSE. --train names the text that models learn from. Speeds are measured
with --speed, of what is built already: minutes on a machine that does nothing else. A run that was stopped goes on with
what it made in the work folder.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from quantization import hardware, insert
from recipes import Group, groups
from shapes import DEMO
from variants import Case, Figures, built, judged, markdown, paces, speeds_of

from edgewise.ledger.variant import Pace

MARK = "smaller"


def row(case: Case, found: Figures, pace: Pace | None) -> dict[str, str]:
    return {
        "what": case.name,
        "bytes": f"{found.bytes:,}",
        "a token reads": f"{found.active:,}",
        "mean KLD": f"{found.mean_kld:.4f}",
        "p99 KLD": f"{found.p99_kld:.3f}",
        "top-1": f"{found.top1:.1%}",
        "KLD, English": "" if found.outside is None else f"{found.outside:.3f}",
        **speeds_of(pace),
    }


def section(group: Group, work: Path, speeds: Mapping[str, Pace]) -> Iterator[str]:
    """A heading, and the table of a group; nothing where nothing is known."""
    if rows := [row(case, found, speeds.get(case.name)) for case, found in judged(group.cases, work)]:
        yield from ("", f"### {group.title}", "", *markdown(rows))


def report(chosen: Sequence[Group], work: Path, runs: int) -> str:
    speeds = paces([case for group in chosen for case in group.cases], work, runs=runs)
    said = f"Speeds in tokens a second: medians of runs in turn on {hardware()}, a thread for each core."
    tables = [line for group in chosen for line in section(group, work, speeds)]
    return "\n".join([*([said] if speeds else []), *tables]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--experts", type=Path, help="a checkpoint with 8 experts, of which 2 are active")
    parser.add_argument("--train", type=Path, default=DEMO / "calibration.txt", help="what models learn from")
    parser.add_argument("--steps", type=int, default=100, help="of learning, 2,048 tokens each")
    parser.add_argument("--no-build", action="store_true", help="show what is built already, and nothing else")
    parser.add_argument("--speed", type=int, default=0, metavar="RUNS", help="the same, and measure its speed")
    parser.add_argument("--docs", type=Path, help="the page whose tables are replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    chosen = groups(options.train, options.steps, options.experts)
    if options.no_build or options.speed:
        chosen = [replace(group, cases=tuple(built(group.cases, options.work))) for group in chosen]
    text = report(chosen, options.work, options.speed)
    print(text)
    if options.docs:
        insert(options.docs, text, MARK)


if __name__ == "__main__":
    main()
