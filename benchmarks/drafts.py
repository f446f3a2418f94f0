"""Drafts for speculative decoding: models made of the one that they draft for, and how often it says the same."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from quantization import sequences_of
from shapes import DEMO
from students import LENGTH, TOKENS, School, Steps, after

import edgewise
from edgewise.calibration.texts import CalibrationText
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.runner import Runner
from edgewise.search.greedy import Greedy
from edgewise.search.sample import Sample
from edgewise.search.speculate import Speculative
from edgewise.steps import record
from edgewise_plugins.prune.depth import PruneLayers
from edgewise_plugins.prune.width import PruneWidth
from edgewise_plugins.quantize import Quantize

TITLE, PART = "Drafts for the model in int4, themselves in int4", 1 / 4
PROMPTS, PROMPT, NEW, WIDTH = 12, 64, 64, 4
HEADING = "| draft | bytes | steps | accepted, greedy | drawn | tokens a step |\n|---|---:|---:|---:|---:|---:|"
SMALL: Steps = (PruneLayers(keep=2), PruneWidth(keep=0.5, multiple=32))
DRAFTS: Mapping[str, str] = {
    "2 of 6 layers, half of their neurons": "",
    "distilled": "scores",
    "distilled, half of the time on what it writes itself": "own text",
}


def rows(school: School, work: Path) -> Iterator[str]:
    target = _build(work / "target.edge", ())
    with Runner.open(target) as runner:
        for name, way in DRAFTS.items():
            kept = work / f"draft-{way.replace(' ', '-') or 'untrained'}.json"
            if not kept.exists():
                kept.write_text(json.dumps(_measured(runner, school, way, work)), "utf-8")
            row = f"| {name} | {' | '.join(json.loads(kept.read_text('utf-8')))} |"
            print(row, flush=True)
            yield row


def _measured(target: Runner, school: School, way: str, work: Path) -> list[str]:
    """The cells of a row."""
    learning = (school.learning(after(SMALL), way, work / f"draft-{way.replace(' ', '-')}.steps"),) if way else ()
    path = _build(work / "draft.edge", (*SMALL, *learning))
    size = sum(file.stat().st_size for file in path.rglob("*.onnx_data"))
    with Runner.open(path) as draft:
        greedy, drawn = _drafts(target, draft, Greedy()), _drafts(target, draft, Sample())
    steps = learning[0].training.steps if learning else ""
    return [f"{size:,}", str(steps), f"{greedy[0]:.0%}", f"{drawn[0]:.0%}", f"{greedy[1]:.2f}"]


def _build(path: Path, steps: Steps) -> Path:
    """A bundle in int4."""
    recipe = Recipe(tuple(_step(record(step)) for step in (*steps, Quantize(method="gptq"))))
    text = CalibrationText(DEMO / "calibration.txt", TOKENS, LENGTH)
    return edgewise.build(DEMO, output=path, recipe=recipe, calibration=text, force=True, load_check=False).path


def _step(options: dict[str, object]) -> RecipeStep:
    return RecipeStep(str(options.pop("pass")), options)


def _drafts(target: Runner, draft: Runner, search: Greedy | Sample) -> tuple[float, float]:
    """Of drafted tokens, the share that became text; and tokens for a step of the target."""
    prompts = sequences_of("heldout.txt", PROMPTS * LENGTH)[:, :PROMPT].tolist()
    drafted = accepted = steps = 0
    for seed, prompt in enumerate(prompts):
        speculative = Speculative(search=search, width=WIDTH)
        found = target.generate(prompt, search=speculative, seed=seed, max_tokens=NEW, assistants=(draft,)).drafts
        assert found
        drafted, accepted, steps = drafted + found.drafted, accepted + found.accepted, steps + found.steps
    return accepted / max(1, drafted), 1 + accepted / max(1, steps)
