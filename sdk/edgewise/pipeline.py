"""sdk: checkpoint to bundle: the whole of `edgewise build`."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import onnx_ir as ir

from edgewise.bundle.contents import copy_companions, graphs
from edgewise.bundle.manifest import File
from edgewise.bundle.probe import probe
from edgewise.bundle.read import Bundle
from edgewise.bundle.write import staged
from edgewise.calibration.cache import cache_folder
from edgewise.calibration.texts import CalibrationText
from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.plan import Plan, make_plan
from edgewise.prefill import Prefill
from edgewise.prepare import Prepared, prepare
from edgewise.recipe import Recipe
from edgewise.target import Target
from edgewise.trial import Trial, Unfinished
from edgewise.writer import Progress, write_model


def build(
    checkpoint: str | Path | Checkpoint,
    *,
    target: str | Target = "cpu-x64",
    output: str | Path,
    recipe: Recipe | Path | None = None,
    context: int | None = None,
    force: bool = False,
    load_check: bool = True,
    measure: bool = False,
    progress: Progress | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    ignore_config: Collection[str] = (),
    calibration: CalibrationText | None = None,
    quality: CalibrationText | None = None,
    prefill: Prefill | None = None,
    hidden_states: bool = False,
    allow_fallback: bool = False,
    parity: int = 0,
    exporter: str | None = None,
) -> Bundle:
    """Pack a checkpoint for a device: a bundle at `output`, there whole or not at all.

    `recipe` replaces the target's own; `context` is what a session gets by default, in tokens; `force` replaces an
    older bundle; `load_check` runs one token through the result before it takes its place; `measure` puts the speed
    of this machine on the card; `on_plan` is shown the plan before a weight is read; `ignore_config` names keys of
    config.json that change nothing; `calibration` is the text that passes measure the model on; on `quality` the
    result is held against the checkpoint, for its card and for the recipe's gate; `prefill="int8"` adds a second
    graph, faster for long prompts, which takes the memory that the plan states; `hidden_states` adds the output
    `hidden_states`, which contrastive search reads; `allow_fallback` lets the CPU compute nodes that the target's
    provider does not take, which otherwise end a build on a machine that has the provider; `parity` is how many tokens
    are computed on the target's provider, or its emulator, and on the processor too, for the card to compare;
    `exporter` names one, in place of the first that supports the checkpoint.

    Raises an EdgewiseError (`edgewise.errors`: CheckpointError, RecipeError, TargetError, BundleError ...), which says
    what to do; the output is then what it was.
    """
    trial = Trial(load_check, allow_fallback, quality, measure, parity)
    trial.require()
    preparing = partial(
        prepare,
        target=target,
        recipe=recipe,
        context=context,
        ignore_config=ignore_config,
        calibration=calibration,
        prefill=prefill,
        hidden_states=hidden_states,
        exporter=exporter,
    )
    output = Path(output)
    with staged(output, force=force) as stage:
        prepared = preparing(checkpoint, dry=calibration is not None)
        trial.refuse_impossible(prepared)
        plan = _plan(prepared, on_plan)
        files = copy_companions(prepared, stage)
        _check_text(stage)
        heldout = trial.read(stage, prepared)
        if calibration:
            again = partial(preparing, ignore_config=(), exported=prepared.exported)
            prepared = again(prepared.checkpoint, progress=progress)
            plan = make_plan(prepared)  # as it was measured to be
        files |= _write_graphs(prepared, stage, progress)
        manifest = trial.run(Unfinished(stage, files, prepared, plan), heldout, progress)
    return Bundle(output, manifest)


def _plan(prepared: Prepared, on_plan: Callable[[Plan], None] | None) -> Plan:
    """The plan, shown to who asked for it. Raises TargetError and OptionError for what does not fit."""
    plan = make_plan(prepared)
    if on_plan:
        on_plan(plan)
    plan.refuse_what_does_not_fit()
    if plan.calibration:
        plan.calibration.refuse_what_does_not_fit(cache_folder())
    return plan


def _check_text(folder: Path) -> None:
    """Raises CheckpointError for a tokenizer or a template that nobody can use."""
    if problem := probe("text", folder):
        raise CheckpointError(problem.replace(f"{folder}/", ""))  # the copy is what the checkpoint holds


def _write_graphs(prepared: Prepared, folder: Path, progress: Progress | None) -> dict[str, File]:
    """The graph that decodes; beside it another, if there is one, which shares its weights where they are the same."""
    files, first = dict[str, File](), None
    for name, model in graphs(prepared).values():
        files |= _write_graph(model, folder, name, progress, beside=first)
        first = first or (model, folder / name)
    return files


def _write_graph(
    model: ir.Model, folder: Path, name: str, progress: Progress | None, *, beside: tuple[ir.Model, Path] | None = None
) -> dict[str, File]:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    written = write_model(model, path, beside=beside, progress=progress)
    return {file.path.relative_to(folder).as_posix(): File(file.bytes, file.blake3) for file in written}
