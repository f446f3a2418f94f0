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
from pathlib import Path

from quantization import hardware, insert
from recipes import Group, groups
from shapes import DEMO
from variants import Case, Figures, judged, paces

from edgewise.ledger.variant import Pace

MARK = "smaller"
HEADING = """\
| what | bytes | a token reads | mean KLD | p99 KLD | top-1 | KLD, English | decode | prefill |
|---|---:|---:|---:|---:|---:|---:|---:|---:|"""


def row(case: Case, found: Figures, pace: Pace | None) -> str:
    cells = [
        case.name,
        f"{found.bytes:,}",
        f"{found.active:,}",
        f"{found.mean_kld:.4f}",
        f"{found.p99_kld:.3f}",
        f"{found.top1:.1%}",
        "" if found.outside is None else f"{found.outside:.3f}",
        *((f"{pace.decode:,.0f}", f"{pace.prefill:,.0f}") if pace else ("", "")),
    ]
    return f"| {' | '.join(cells)} |"


def section(group: Group, work: Path, speeds: Mapping[str, Pace]) -> Iterator[str]:
    """A heading, and the table of a group."""
    yield from ("", f"### {group.title}", "", HEADING)
    for case, found in judged(group.cases, work):
        yield row(case, found, speeds.get(case.name))


def report(chosen: Sequence[Group], work: Path, runs: int) -> str:
    cases = [case for group in chosen for case in group.cases]
    speeds = paces(cases, work, runs=runs)
    lines = [f"Speeds in tokens a second: medians of runs in turn on {hardware()}, one thread for each core."]
    return "\n".join([*lines, *(line for group in chosen for line in section(group, work, speeds))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--experts", type=Path, help="a checkpoint with 8 experts, of which 2 are active")
    parser.add_argument("--train", type=Path, default=DEMO / "calibration.txt", help="what models learn from")
    parser.add_argument("--steps", type=int, default=100, help="of learning, 2,048 tokens each")
    parser.add_argument("--only", help="build the cases of a group whose names hold this, and stop there")
    parser.add_argument("--speed", type=int, default=0, metavar="RUNS", help="measure the speed of what is built")
    parser.add_argument("--docs", type=Path, help="the page whose tables are replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    chosen = groups(options.train, options.steps, options.experts)
    if options.only is not None:
        list(judged([case for group in chosen for case in group.cases if options.only in case.name], options.work))
        return
    text = report(chosen, options.work, options.speed)
    print(text)
    if options.docs:
        insert(options.docs, text, MARK)


if __name__ == "__main__":
    main()
