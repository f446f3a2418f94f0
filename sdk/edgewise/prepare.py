"""sdk: all of a build that happens before a weight is read: checkpoint, graph, recipe, lowering, and their sizes."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgewise.calibration.plan import CalibrationPlan
from edgewise.calibration.texts import CalibrationText
from edgewise.checkpoint import Checkpoint
from edgewise.companions import Companions
from edgewise.crossing import cut
from edgewise.encoders import refuse_of_decoders
from edgewise.errors import LoweringError, OptionError, RecipeError
from edgewise.exporters import export_graph
from edgewise.facts import AnyFacts, EncoderFacts, Facts
from edgewise.graph import any_facts, gather_zeros, set_facts
from edgewise.hidden import add_hidden_states
from edgewise.lint import refuse
from edgewise.passes import BuildContext, Pass
from edgewise.prefill import Prefill, prefill_graph, remember
from edgewise.quality.gate import Gate
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.sizes import Size, sizes_of
from edgewise.steps import apply, resolve
from edgewise.target import Target
from edgewise.tensors import Streamed
from edgewise.writer import Progress

if TYPE_CHECKING:
    from edgewise.calibration.calibration import Calibration


@dataclass(frozen=True)
class Prepared:
    """A lowered model whose weights are still views of the checkpoint, and what was decided on the way."""

    checkpoint: Checkpoint
    target: Target
    recipe: tuple[Pass, ...]
    lowering: tuple[Pass, ...]
    context: int  # tokens that a session gets by default
    facts: AnyFacts
    stored: Mapping[str, Size]  # by part, as the checkpoint stores it
    model: ir.Model
    calibration: CalibrationPlan | None  # where the user gave a text
    gate: Gate | None
    graphs: tuple[ir.Model, ...]  # canonical: before each step and after the last, where there is a gate
    exported: ir.Model  # as its exporter gave it
    reference: ir.Model  # canonical: the checkpoint in float32, with the tokens that are left
    companions: Companions  # tokenizer and configurations, as the recipe left them
    prompts: ir.Model | None = None  # the lowered graph of prompts, where one was asked for or lengths are fixed
    encoder: ir.Model | None = None  # the lowered graph that reads the prompt of an encoder-decoder
    hidden_states: bool = False  # whether the graphs have that output


def prepare(
    checkpoint: str | Path | Checkpoint,
    *,
    target: str | Target,
    recipe: Recipe | Path | None,
    context: int | None,
    ignore_config: Collection[str],
    calibration: CalibrationText | None = None,
    dry: bool = False,
    progress: Progress | None = None,
    prefill: Prefill | None = None,
    hidden_states: bool = False,
    exporter: str | None = None,
    exported: ir.Model | None = None,
) -> Prepared:
    """Load, export, apply the recipe, lower to the target. `exported`: what an export has given before.

    Everything is lazy, and no weight is read, but by passes that measure the model on a calibration text; with `dry`
    they do not, and the result is good for a plan only.
    """
    device = registry().get_target(target) if isinstance(target, str) else target
    _check_lengths(device, prefill, hidden_states)
    chosen, passes = _recipe(recipe, device, calibrated=calibration is not None)
    lowering = resolve(device.lowering, where=f"target '{device.name}': lowering")
    source = open_checkpoint(checkpoint, ignore_config=ignore_config)

    exported = exported or export_graph(source, exporter=exporter)
    model = exported.clone()
    stored = sizes_of(model, stored=source.tensors)
    facts = any_facts(model)
    tokens = _context(context, device, facts)
    if prefill and isinstance(facts, Facts) and facts.source:
        raise OptionError("prefill 'int8' is a second graph for prompts, which this model has an encoder for")
    if isinstance(facts, EncoderFacts):
        refuse_of_decoders(facts, {"calibration text": calibration, "prefill": prefill, "hidden states": hidden_states})
        set_facts(model, dataclasses.replace(facts, context_length=tokens))
        if recipe is None and device.encoders:
            chosen, passes = _recipe(Recipe(device.encoders), device, calibrated=False)
    measured = calibrate(calibration, source, tokens, progress) if calibration else None
    reference, companions = model.clone(), Companions(source)
    build = BuildContext(device, tokens, measured, reference=reference, companions=companions, dry=dry)
    kept = _Kept(whole=chosen.gate is not None)
    model = apply(model, passes, build, error=RecipeError, before=kept.add)
    kept.add(model)
    gather_zeros(model)
    cost = _cost(measured, model, dry) if measured else None
    prompts = prefill_graph(model, kept.floats, build) if prefill else None
    if hidden_states:
        for canonical in filter(None, (model, prompts)):
            add_hidden_states(canonical)
    model, prompts = _lower(model, prompts, lowering, build)
    facts, encoder = any_facts(model), None  # as recipe and lowering left them
    if isinstance(facts, Facts) and facts.source:
        model, encoder = cut(model, facts)
    for graph in filter(None, (model, prompts, encoder)):
        refuse(graph, device)
    return Prepared(
        checkpoint=source,
        target=device,
        recipe=tuple(done for step in passes for done in build.done(step)),
        lowering=lowering,
        context=tokens,
        facts=facts,
        stored=stored,
        model=model,
        calibration=cost,
        gate=chosen.gate,
        graphs=tuple(kept.graphs),
        exported=exported,
        reference=reference,
        companions=companions,
        prompts=prompts,
        encoder=encoder,
        hidden_states=hidden_states,
    )


@dataclass
class _Kept:
    """Of a canonical graph before each step of a recipe, and after the last: its floats, or the `whole` of it too."""

    whole: bool
    floats: dict[str, Streamed] = field(default_factory=dict)
    graphs: list[ir.Model] = field(default_factory=list)

    def add(self, model: ir.Model) -> None:
        remember(model, self.floats)
        if self.whole:
            self.graphs.append(model.clone())


def _check_lengths(target: Target, prefill: Prefill | None, hidden_states: bool) -> None:
    """Raises OptionError for what graphs of fixed lengths do not have."""
    asked = {"prefill 'int8'": prefill, "hidden states": hidden_states}
    if target.needs.static and (names := [name for name, value in asked.items() if value]):
        raise OptionError(f"target '{target.name}' has graphs of fixed lengths, which go without {' and '.join(names)}")


def _lower(
    model: ir.Model, prompts: ir.Model | None, lowering: Collection[Pass], build: BuildContext
) -> tuple[ir.Model, ir.Model | None]:
    """The graph that decodes and the one of prompts; where lengths are fixed, both are made of one."""
    widths: tuple[int | None, int | None] = (None, None)
    if build.target and (fixed := build.target.needs.static):
        prompts, widths = model.clone(), (1, fixed.prefill)
        build = dataclasses.replace(build, margin=fixed.prefill)
    steps, (one, many) = tuple(lowering), (dataclasses.replace(build, width=width) for width in widths)
    model = apply(model, steps, one, error=LoweringError)
    return model, apply(prompts, steps, many, error=LoweringError) if prompts else None


def open_checkpoint(source: str | Path | Checkpoint, *, ignore_config: Collection[str] = ()) -> Checkpoint:
    """The checkpoint, its configuration without the keys that the user wants ignored. OptionError for one it lacks."""
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.open(source)
    if absent := set(ignore_config) - set(checkpoint.config):
        raise OptionError(f"config.json has no key '{min(absent)}' that could be left out; is it spelt like that?")
    config = {key: value for key, value in checkpoint.config.items() if key not in ignore_config}
    return dataclasses.replace(checkpoint, config=config)


def calibrate(
    text: CalibrationText, checkpoint: Checkpoint, context: int | None, progress: Progress | None
) -> "Calibration":
    """The text in the checkpoint's tokens."""
    from edgewise.calibration.calibration import Calibration  # which takes ONNX Runtime

    tokenizer = Companions(checkpoint).tokenizer(needed_by="a calibration text")
    return Calibration(text, tokenizer, context, progress)


def _cost(calibration: "Calibration", model: ir.Model, dry: bool) -> CalibrationPlan:
    """What measuring takes. Raises OptionError where nothing was measured."""
    if not calibration.used and not dry:
        raise OptionError("no step of the recipe measures the model: a calibration text would change nothing")
    return calibration.plan(model)


def _recipe(recipe: Recipe | Path | None, target: Target, *, calibrated: bool) -> tuple[Recipe, tuple[Pass, ...]]:
    """The recipe, the target's own where none is given, and its passes; where there is a text, those that follow."""
    chosen = Recipe.load(recipe) if isinstance(recipe, Path) else recipe or Recipe(target.recipe)
    passes = resolve(chosen.steps, where="recipe" if recipe else f"target '{target.name}'")
    return chosen, passes + (_calibrated(target, passes) if calibrated else ())


def _calibrated(target: Target, passes: Collection[Pass]) -> tuple[Pass, ...]:
    """What follows a recipe where there is a calibration text, but for what the recipe does itself."""
    own = {step.name for step in passes}
    steps = [step for step in target.calibrated if step.name not in own]
    return resolve(steps, where=f"target '{target.name}': calibrated")


def _context(asked: int | None, target: Target, facts: AnyFacts) -> int:
    if asked is None:
        return facts.context_length if isinstance(facts, EncoderFacts) else min(target.context, facts.original_context)
    if not 1 <= asked <= facts.context_length:
        raise OptionError(f"context: {asked} is not from 1 to {facts.context_length}, the context of the model")
    return asked
