"""What pruned models cost and save: bytes, and divergence from the checkpoint.

    python benchmarks/smaller.py --work /tmp/edgewise-benchmarks --docs docs/smaller.md

The model is examples/pycoder, and for experts the checkpoint that --experts names; passes see calibration.txt, and
figures are on heldout.txt. A run that was stopped goes on with what it made in the work folder.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantization import insert, sequences_of
from shapes import DEMO

import edgewise
from edgewise.bundle.read import Bundle
from edgewise.calibration.cache import scratch
from edgewise.calibration.texts import CalibrationText
from edgewise.prepare import export_graph, open_checkpoint
from edgewise.quality.evaluate import assess
from edgewise.quality.report import Distance
from edgewise.quality.scorers import Canonical, lowered
from edgewise.recipe import Recipe, RecipeStep
from edgewise.text.tokenizer import Tokenizer

MARK = "smaller"
TOKENS, HELD_OUT, LENGTH = 32_768, 16_384, 512
HEADING = "| what | bytes | mean KLD | p99 KLD | top-1 |\n|---|---:|---:|---:|---:|"

Steps = tuple[tuple[str, Mapping[str, Any]], ...]

LEARNING = {"length": 256, "training": {"steps": 100, "batch": 8, "evaluate": 25}}
DENSE: Mapping[str, Steps] = {
    "the checkpoint": (),
    "75 % of the neurons, cut": (("prune-width", {"keep": 0.75, "multiple": 32, "refit": False}),),
    "75 % of the neurons": (("prune-width", {"keep": 0.75, "multiple": 32}),),
    "50 % of the neurons, cut": (("prune-width", {"keep": 0.5, "multiple": 32, "refit": False}),),
    "50 % of the neurons": (("prune-width", {"keep": 0.5, "multiple": 32}),),
    "50 % of the neurons, distilled": (("prune-width", {"keep": 0.5, "multiple": 32}), ("distill", LEARNING)),
    "1 of 2 key-value heads": (("prune-heads", {"keep": 0.5}),),
    "5 of 6 layers": (("prune-layers", {"keep": 5}),),
    "3 of 6 layers": (("prune-layers", {"keep": 3}),),
    "3 of 6 layers, distilled": (("prune-layers", {"keep": 3}), ("distill", LEARNING)),
    "50 % of the neurons, int4": (("prune-width", {"keep": 0.5, "multiple": 32}), ("quantize", {"method": "gptq"})),
    "int4": (("quantize", {"method": "gptq"}),),
}
EXPERTS: Mapping[str, Steps] = {
    "6 of 8 experts, by reap": (("prune-experts", {"keep": 6}),),
    "6 of 8 experts, by frequency": (("prune-experts", {"keep": 6, "worth": "frequency"}),),
    "6 of 8 experts, by norm": (("prune-experts", {"keep": 6, "worth": "norm"}),),
    "1 of 2 experts active": (("active-experts", {"active": 1}),),
}


@dataclass(frozen=True)
class Measured:
    """One build: bytes of its weights, figures on the held-out text."""

    bytes: int
    mean_kld: float
    p99_kld: float
    top1: float

    def row(self, name: str) -> str:
        return f"| {name} | {self.bytes:,} | {self.mean_kld:.4f} | {self.p99_kld:.3f} | {self.top1:.1%} |"


def measure(name: str, steps: Steps, checkpoint: Path, work: Path) -> Measured:
    """Build it, unless that has been done."""
    kept = work / f"{name.replace('%', 'percent').replace(' ', '-').replace(',', '')}.json"
    if kept.exists():
        return Measured(**json.loads(kept.read_text("utf-8")))
    recipe = Recipe(tuple(RecipeStep(step, options) for step, options in steps))
    measuring = any(step != "active-experts" for step, _ in steps)
    text = CalibrationText(DEMO / "calibration.txt", tokens=TOKENS, length=LENGTH) if measuring else None
    output = work / "smaller.edge"
    bundle = edgewise.build(checkpoint, output=output, recipe=recipe, calibration=text, force=True, load_check=False)
    distance = distance_of(bundle, checkpoint)
    stored = sum(file.bytes for path, file in bundle.manifest.files.items() if path.endswith(".onnx_data"))
    found = Measured(stored, distance.mean_kld, distance.p99_kld, distance.top1)
    kept.write_text(json.dumps(asdict(found)), "utf-8")
    return found


def distance_of(bundle: Bundle, checkpoint: Path) -> Distance:
    """How far a bundle is from the float graph of a checkpoint, on the held-out text."""
    sequences = sequences_of("heldout.txt", HELD_OUT)
    model, reference = lowered(bundle, length=LENGTH), Canonical(export_graph(open_checkpoint(checkpoint)))
    with scratch() as folder:
        found = assess(model, reference, sequences, Tokenizer.load(bundle.path), folder=folder)
    assert found.distance is not None
    return found.distance


def rows(cases: Mapping[str, Steps], checkpoint: Path, work: Path) -> Iterator[str]:
    for name, steps in cases.items():
        row = measure(name, steps, checkpoint, work).row(name)
        print(row, flush=True)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--experts", type=Path, help="a checkpoint with 8 experts, of which 2 are active")
    parser.add_argument("--distill", action="store_true", help="models that learn, too: minutes for each")
    parser.add_argument("--docs", type=Path, help="the page whose table is replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    dense = {name: steps for name, steps in DENSE.items() if options.distill or ("distill", LEARNING) not in steps}
    table = [HEADING, *rows(dense, DEMO, options.work)]
    if options.experts:
        table += ["", "And of a mixture of experts of the same kind of text:", "", HEADING]
        table += rows(EXPERTS, options.experts, options.work)
    if options.docs:
        insert(options.docs, "\n".join(table), MARK)


if __name__ == "__main__":
    main()
