"""What distillation wins back: neurons, layers, bits; and drafts for speculative decoding, by how many are accepted.

    python benchmarks/distillation.py --work /tmp/edgewise-benchmarks --train train.txt --docs docs/distillation.md

The model is examples/pycoder. Passes see its calibration.txt, students learn from --train, and figures are on
heldout.txt. Each student gets --minutes of the processor's time, or a part of it; its first steps tell how many that
is. All is on one thread where OMP_NUM_THREADS=1 says so. A run that was stopped goes on, in the middle of a student
too.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import drafts
import torch
from quantization import hardware, insert, sequences_of
from students import BATCH, SEQUENCE, Forget, School, Steps, after, teacher

from edgewise.quality.compare import compared
from edgewise.quality.divergence import Divergences
from edgewise.quality.report import distance
from edgewise.quality.scorers import Canonical
from edgewise.sizes import sizes_of, total
from edgewise_plugins.prune.depth import PruneLayers
from edgewise_plugins.prune.width import PruneWidth
from edgewise_plugins.quantize import Quantize

MARK = "distillation"
HELD_OUT = 16_384
HEADING = "| what | bytes | steps | mean KLD | of the first | top-1 |\n|---|---:|---:|---:|---:|---:|"

CUT, FITTED = (PruneWidth(keep=0.75, multiple=32, refit=fitted) for fitted in (False, True))
HALF = PruneLayers(keep=3)
INT4, INT2 = Quantize(method="gptq"), Quantize(bits=2, block_size=32, method="gptq")

Table = Mapping[str, tuple[Steps, str]]  # by name: what is done to the model, and how it learns then

TABLES: Mapping[tuple[str, float], Table] = {  # by title, and the part of the minutes that a student gets
    ("Three quarters of the neurons", 3 / 4): {
        "cut": ((CUT,), ""),
        "refitted": ((FITTED,), ""),
        "refitted, distilled": ((FITTED,), "gently"),
    },
    ("Half of the layers", 1 / 2): {
        "left out": ((HALF,), ""),
        "distilled": ((HALF,), "scores"),
        "the same size, from random weights": ((HALF, Forget()), "scores"),
    },
    ("4 bits, blocks of 128", 1 / 16): {
        "GPTQ": ((INT4,), ""),
        "its scales learned": ((INT4,), "scales"),
        "its codes and scales learned": ((INT4,), "codes"),
    },
    ("2 bits, blocks of 32", 1 / 16): {
        "GPTQ": ((INT2,), ""),
        "its scales learned": ((INT2,), "scales"),
        "its codes and scales learned": ((INT2,), "codes"),
    },
}


@dataclass(frozen=True)
class Made:
    """One model: bytes of its weights, steps that it learned for, figures on the held-out text."""

    bytes: int
    steps: int
    mean_kld: float
    top1: float

    def row(self, name: str, first: float) -> str:
        share = f"{self.mean_kld / first:.0%}"
        return f"| {name} | {self.bytes:,} | {self.steps or ''} | {self.mean_kld:.2g} | {share} | {self.top1:.1%} |"


def made(steps: Steps, way: str, school: School, noted: Path) -> Made:
    """A model, after these passes, which then learns in that way, for the steps that are noted."""
    model, count = after(steps), 0
    if way:
        learning = school.learning(model, way, noted)
        count = learning.training.steps
        learning(model)
    sequences = sequences_of("heldout.txt", HELD_OUT)
    found = distance(Divergences.join(list(compared(Canonical(model), Canonical(teacher()), sequences))))
    return Made(total(sizes_of(model)).bytes, count, found.mean_kld, found.top1)


def rows(title: str, table: Table, school: School, work: Path) -> Iterator[str]:
    first = 0.0
    for name, (steps, way) in table.items():
        kept, noted = _path(work, title, name, "json"), _path(work, title, way, "steps")
        if not kept.exists():
            kept.write_text(json.dumps(asdict(made(steps, way, school, noted))), "utf-8")
        found = Made(**json.loads(kept.read_text("utf-8")))
        first = first or found.mean_kld
        row = found.row(name, first)
        print(row, flush=True)
        yield row


def _path(work: Path, title: str, name: str, suffix: str) -> Path:
    return work / f"{title}-{name}.{suffix}".replace(" ", "-").replace(",", "").lower()


def report(options: argparse.Namespace) -> Iterator[str]:
    """The tables, or those whose titles hold --only."""
    threads = torch.get_num_threads()
    yield (
        f"On {hardware()}, {threads} {'thread' if threads == 1 else 'threads'}; minutes are the processor's, steps are "
        f"{BATCH} sequences of {SEQUENCE} tokens."
    )
    for (title, part), table in TABLES.items():
        if options.only in title:
            school = School(options.train, options.tokens, part * options.minutes)
            yield from ("", _heading(title, school), "", HEADING, *rows(title, table, school, options.work))
    if options.only in drafts.TITLE:
        school = School(options.train, options.tokens, drafts.PART * options.minutes)
        yield from ("", _heading(drafts.TITLE, school), "", drafts.HEADING, *drafts.rows(school, options.work))


def _heading(title: str, school: School) -> str:
    return f"{title}; {school.minutes:g} minutes of learning:"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True, help="the text that students learn from")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of it")
    parser.add_argument("--minutes", type=float, default=20, help="of the processor, for each student")
    parser.add_argument("--only", default="", help="tables whose title holds this; the page then stays as it is")
    parser.add_argument("--docs", type=Path, help="the page whose tables are replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    text = "\n".join(report(options))
    if options.docs and not options.only:
        insert(options.docs, text, MARK)


if __name__ == "__main__":
    main()
