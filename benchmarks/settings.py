"""What the settings of a session are worth: threads, spinning, packing, memory; each beside those that a bundle has.

    python benchmarks/shapes.py qwen2.5-0.5b /tmp/checkpoint
    edgewise build /tmp/checkpoint --prefill int8 -o /tmp/model.edge
    python benchmarks/settings.py /tmp/model.edge --docs docs/benchmarks.md

Two processes at a time, in turn, with the same prompts: as the bundle says, and with one setting changed. The first
round is not counted. Prints medians of the ratios of speed within a round, above 1 where the change is faster, and what
loading takes. Peak memory is that of the process once it has loaded.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import peer
from quantization import hardware, insert
from speed import Worker

MARK = "settings"
HEADING = """\
| changed | prefill | decode | loads in | peak memory |
|---|---:|---:|---:|---:|"""


@dataclass(frozen=True)
class Change:
    """Other settings, and how many tokens are needed to see what they do."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    prefill: int = 512
    decode: int = 64


CHANGES = (
    Change("nothing"),
    Change("one thread", {"threads": 1}),
    Change("threads spin on when a run has ended", {"session": {"session.force_spinning_stop": "0"}}),
    Change("threads never spin", {"session": {"session.intra_op.allow_spinning": "0"}}),
    Change("work handed out in smaller pieces", {"session": {"session.dynamic_block_base": "4"}}),
    Change("weights packed by all threads", {"session": {"session.prepack.enable_parallel": "1"}}),
    Change("weights outside of the arena", {"session": {"session.use_device_allocator_for_initializers": "1"}}),
    Change("weights not packed", {"session": {"session.disable_prepacking": "1"}}, prefill=2, decode=1),
    Change("pages of 4 KiB", {"huge_pages": False}),
)


@dataclass(frozen=True)
class Loaded:
    """A worker, and what it took to get there."""

    worker: Worker
    seconds: float
    megabytes: float

    @classmethod
    def start(cls, bundle: Path, change: Change) -> "Loaded":
        worker = Worker.begin(peer.here(), "settings_worker.py", bundle, json.dumps(change.settings))
        return cls(worker, *map(float, worker.read().split()))


def compare(base: Loaded, bundle: Path, change: Change, rounds: int) -> str:
    """A row of the table."""
    other = Loaded.start(bundle, change)
    with other.worker:
        pairs = [
            [each.worker.measure(change.prefill, change.decode, seed) for each in (base, other)]
            for seed in range(rounds + 1)
        ][1:]
    ratios = [median(theirs[i] / ours[i] for ours, theirs in pairs) for i in (0, 1)]
    cells = [change.name, *(f"{ratio:.2f}" for ratio in ratios), f"{other.seconds:.1f} s", f"{other.megabytes:,.0f} MB"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    base = Loaded.start(options.bundle, CHANGES[0])
    rows = []
    with base.worker:
        for change in CHANGES:
            rows.append(compare(base, options.bundle, change, options.rounds))
            print(rows[-1], flush=True)
    if options.docs:
        said = f"Medians of {options.rounds} rounds on {hardware()}; above 1, the change is faster:"
        insert(options.docs, "\n".join([said, "", HEADING, *rows]), MARK)


if __name__ == "__main__":
    main()
