"""sdk: the plan for a mixture of experts that is larger than the memory of its device: some stay, others are read."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from edgewise.calibration.texts import CalibrationText
from edgewise.calibration.trace import trace
from edgewise.checkpoint import Checkpoint
from edgewise.errors import GraphError, RecipeError
from edgewise.exporters import export_graph
from edgewise.facts import Facts
from edgewise.graph import get_facts
from edgewise.planner.offload import Offload, offload
from edgewise.planner.outlook import Outlook
from edgewise.prepare import open_checkpoint, prepare
from edgewise.recipe import Recipe
from edgewise.target import Target
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import Progress


def plan_offload(
    checkpoint: str | Path | Checkpoint,
    *,
    resident: int,
    text: CalibrationText,
    target: str | Target = "cpu-x64",
    recipe: Recipe | Path | None = None,
    context: int | None = None,
    ignore_config: Collection[str] = (),
    progress: Progress | None = None,
) -> Offload:
    """What a device is expected to do that keeps `resident` experts of each layer, and reads others from its storage.

    The checkpoint is run on the text for it, in float32, a layer in memory at a time. Nothing runs that way yet.
    Raises GraphError for a dense model, RecipeError for a recipe that changes the experts, and as `offload`.
    """
    source = open_checkpoint(checkpoint, ignore_config=ignore_config)
    model = export_graph(source)
    if not any(get_facts(model).experts):
        raise GraphError("the model is dense: it has no experts that could stay in storage")
    prepared = prepare(source, target=target, recipe=recipe, context=context, ignore_config=(), dry=True)
    if _routing(get_facts(prepared.model)) != _routing(get_facts(model)):
        raise RecipeError("the recipe changes the experts, and it is the checkpoint whose routing is measured")
    text = replace(text, length=min(text.length, get_facts(model).context_length))
    found = trace(model, text.sequences(Tokenizer.load(source.folder)), context=prepared.context, progress=progress)
    return offload(Outlook.of(prepared), found, resident=resident, context=prepared.context)


def _routing(facts: Facts) -> list[tuple[int, int] | None]:
    return [(mixture.count, mixture.active) if mixture else None for mixture in facts.experts]
