"""Smaller models, each built once into a work folder, and judged once: what smaller.py and pareto.py show.

A case whose recipe has changed is another one. A run that was stopped goes on with the next case.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import blake3
from shapes import DEMO

import edgewise
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import EdgewiseError, OptionError
from edgewise.ledger.here import measured
from edgewise.ledger.variant import Pace, variant
from edgewise.quality.evaluate import evaluate
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry

TOKENS, HELD_OUT, LENGTH = 16_384, 8_192, 512
OUTSIDE_TOKENS = 4_096
INSIDE, OUTSIDE = "heldout.txt", "LICENSE"  # Python, and English

Steps = tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True)
class Figures:
    """What is known of a case without a clock. Sizes in bytes; divergences from the float checkpoint."""

    bytes: int
    memory: int
    active: int  # that a token reads when the context is full
    operations: int
    mean_kld: float
    p99_kld: float
    top1: float
    outside: float | None  # mean divergence on the other text; None: its tokens are others


@dataclass(frozen=True)
class Case:
    """A checkpoint, what is done to it, and what that is called."""

    name: str
    steps: Steps = ()
    checkpoint: Path = DEMO
    calibrated: bool = True  # whether a step measures the model

    def folder(self, work: Path) -> Path:
        """Where its bundle is: the same for all cases of one recipe, wherever the demo lies."""
        recipe = blake3.blake3(repr(self.steps).replace(str(DEMO), DEMO.name).encode()).hexdigest()
        return work / f"{self.checkpoint.name}-{recipe[:12]}.edge"

    def built(self, work: Path) -> Bundle:
        """Its bundle, which carries its quality on the held-out text on its card."""
        folder = self.folder(work)
        if folder.exists():
            return Bundle.open(folder, verify=False)
        recipe = Recipe(tuple(RecipeStep(name, options) for name, options in self.steps))
        return edgewise.build(
            self.checkpoint,
            output=folder,
            recipe=recipe,
            calibration=CalibrationText(DEMO / "calibration.txt", TOKENS, LENGTH) if self.calibrated else None,
            quality=CalibrationText(DEMO / INSIDE, HELD_OUT, LENGTH),
            load_check=False,
        )

    def figures(self, work: Path) -> Figures:
        """Built and judged, unless that has been done."""
        kept = self.folder(work).with_suffix(".json")
        if kept.exists():
            return Figures(**json.loads(kept.read_text("utf-8")))
        bundle = self.built(work)
        counted = variant(bundle, registry().get_target("cpu-x64"), bundle.manifest.context)
        quality = bundle.manifest.card["quality"]
        found = Figures(
            bytes=counted.weights,
            memory=counted.memory,
            active=counted.active,
            operations=counted.operations,
            outside=_outside(bundle, self.checkpoint),
            **{name: quality[name] for name in ("mean_kld", "p99_kld", "top1")},
        )
        kept.write_text(json.dumps(asdict(found)), "utf-8")
        return found


def judged(cases: Sequence[Case], work: Path) -> Iterator[tuple[Case, Figures]]:
    """Each case with its figures; one that cannot be built says why, and is left out."""
    for case in cases:
        try:
            found = case.figures(work)
        except EdgewiseError as error:
            print(f"{case.name}: {error}", flush=True)
            continue
        print(f"{case.name}: {found}", flush=True)
        yield case, found


def built(cases: Sequence[Case], work: Path) -> list[Case]:
    """Those that have figures already."""
    return [case for case in cases if case.folder(work).with_suffix(".json").exists()]


def markdown(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """A table, without the columns that are empty in all rows."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    marks = ["---", *("---:" for _ in columns[1:])]
    cells = [columns, marks, *([row[name] for name in columns] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in cells]


def speeds_of(pace: Pace | None) -> dict[str, str]:
    """Two cells of a row."""
    return {
        "decode": f"{pace.decode:,.0f}" if pace else "",
        "prefill": f"{pace.prefill:,.0f}" if pace else "",
    }


def paces(cases: Sequence[Case], work: Path, *, runs: int) -> dict[str, Pace]:
    """By name, the speed of those that are built: measured in turn, and kept; without runs, what was kept."""
    kept = work / "speed.json"
    before = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    there = {case.name: case.folder(work) for case in cases if case.folder(work).exists()}
    if runs:
        found = measured(list(there.values()), runs=runs)
        before |= {folder.name: asdict(pace) for folder, pace in zip(there.values(), found, strict=True)}
        kept.write_text(json.dumps(before, indent=1), "utf-8")
    return {name: Pace(**before[folder.name]) for name, folder in there.items() if folder.name in before}


def _outside(bundle: Bundle, checkpoint: Path) -> float | None:
    text = CalibrationText(DEMO / OUTSIDE, OUTSIDE_TOKENS, LENGTH)
    try:
        distance = evaluate(bundle.path, text, against=checkpoint).distance
    except OptionError:
        return None
    return distance.mean_kld if distance else None
