"""sdk: checkpoint to bundle: the whole of `edgewise build` and `edgewise export`."""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.ahead import Compiled, check_compiler, compile_graphs, runs_on
from edgewise.bundle.contents import GRAPH, PREFILL, copy_companions, finish
from edgewise.bundle.manifest import File, Manifest
from edgewise.bundle.probe import ask, probe
from edgewise.bundle.read import Bundle
from edgewise.bundle.write import staged
from edgewise.calibration.cache import cache_folder
from edgewise.calibration.texts import CalibrationText
from edgewise.checkpoint import Checkpoint
from edgewise.errors import BundleError, CheckpointError, OptionError, RecipeError
from edgewise.extras import require
from edgewise.parity import compare
from edgewise.placement import CPU, Placement, is_emulated
from edgewise.plan import Plan, make_plan
from edgewise.prefill import Prefill
from edgewise.prepare import Prepared, export_graph, open_checkpoint, prepare
from edgewise.recipe import Recipe
from edgewise.target import Target
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import Progress, write_model

logger = logging.getLogger(__name__)


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
    are computed on the target's provider, or its emulator, and on the processor too, for the card to compare.

    Raises an EdgewiseError (`edgewise.errors`: CheckpointError, RecipeError, TargetError, BundleError ...), which says
    what to do; the output is then what it was.
    """
    if load_check or measure or quality:
        require("onnxruntime")
    if allow_fallback and not load_check:
        raise OptionError("allow_fallback is of no use without the load check, which finds what falls back")
    output = Path(output)
    with staged(output, force=force) as stage:
        preparing = partial(
            prepare,
            target=target,
            recipe=recipe,
            context=context,
            ignore_config=ignore_config,
            calibration=calibration,
            prefill=prefill,
            hidden_states=hidden_states,
        )
        prepared = preparing(checkpoint, dry=calibration is not None)
        if prepared.gate and not quality:
            raise RecipeError("the recipe has a gate, which needs a text to measure the bundle on: --quality-text FILE")
        _check_accelerator(prepared, parity, measure=measure)
        plan = make_plan(prepared)
        if on_plan:
            on_plan(plan)
        plan.refuse_what_does_not_fit()
        if plan.calibration:
            plan.calibration.refuse_what_does_not_fit(cache_folder())
        files = copy_companions(prepared, stage)
        _check_text(stage)
        heldout = _sequences(quality, stage, prepared) if quality else None
        if calibration:
            prepared = preparing(prepared.checkpoint, progress=progress)
            plan = make_plan(prepared)  # as it was measured to be

        files |= _write_graph(prepared.model, stage, GRAPH, progress)
        if prepared.prompts:
            beside = prepared.model, stage / GRAPH
            files |= _write_graph(prepared.prompts, stage, PREFILL, progress, beside=beside)
        manifest = finish(stage, files, prepared, plan, {})
        measured: dict[str, Any] = {}
        if load_check:
            measured["placement"] = _check_load(stage, prepared.target, allow_fallback)
            manifest = finish(stage, files, prepared, plan, measured)
        compiled = _compile(stage, prepared, allow_fallback)
        if quality and heldout is not None:
            measured["quality"] = {"text": quality.path.name, **_judge(stage, manifest, prepared, heldout, progress)}
        if measure:
            measured["speed"] = _measure(stage, progress)
        if parity:
            measured["parity"] = compare(stage, tokens=parity)
        if compiled:
            files, measured["compiled"] = compiled.install(files), compiled.card
            prepared = dataclasses.replace(prepared, target=runs_on(prepared.target))
        if quality or measure or parity or compiled:
            manifest = finish(stage, files, prepared, plan, measured)
    return Bundle(output, manifest)


def export(
    checkpoint: str | Path | Checkpoint,
    output: str | Path,
    *,
    exporter: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    ignore_config: Collection[str] = (),
) -> Path:
    """Write the canonical graph of a checkpoint: standard ONNX in float32, `model.onnx` in the folder `output`.

    Gives the path of the graph. Raises CheckpointError, OptionError (an unknown exporter) and BundleError (the output).
    """
    output = Path(output)
    with staged(output, force=force) as stage:
        model = export_graph(open_checkpoint(checkpoint, ignore_config=ignore_config), exporter=exporter)
        _write_graph(model, stage, "model.onnx", progress)
    return output / "model.onnx"


def _write_graph(
    model: ir.Model, folder: Path, name: str, progress: Progress | None, *, beside: tuple[ir.Model, Path] | None = None
) -> dict[str, File]:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    written = write_model(model, path, beside=beside, progress=progress)
    return {file.path.relative_to(folder).as_posix(): File(file.bytes, file.blake3) for file in written}


def _check_accelerator(prepared: Prepared, parity: int, *, measure: bool) -> None:
    """Refuse what cannot be done for a target, before the weights are read."""
    target = prepared.target
    check_compiler(target)
    if parity < 0:
        raise OptionError(f"parity: {parity} is not a number of tokens")
    if parity and all(provider.name == CPU.name for provider in target.providers):
        raise OptionError(f"parity: {parity} tokens cannot be compared; target '{target.name}' runs on the processor")
    if parity >= prepared.context:
        raise OptionError(
            f"parity: {parity:,} tokens after a prompt do not fit a context of {prepared.context:,}; "
            "compare fewer, or take a larger --context"
        )
    if measure and is_emulated(target.providers):
        raise OptionError(f"measure: the speed of an emulator says nothing about target '{target.name}'")


def _compile(folder: Path, prepared: Prepared, allow_fallback: bool) -> Compiled | None:
    """The graphs, compiled for a target that wants it; those that were written stay until all checks are made."""
    settings = prepared.target.compile
    if not settings:
        return None
    graphs = [GRAPH, PREFILL] if prepared.prompts else [GRAPH]
    return compile_graphs(folder, graphs, prepared.target, settings, allow_fallback=allow_fallback)


def _check_text(folder: Path) -> None:
    if problem := probe("text", folder):
        raise CheckpointError(problem.replace(f"{folder}/", ""))  # the copy is what the checkpoint holds


def _check_load(folder: Path, target: Target, allow_fallback: bool) -> dict[str, Any]:
    """Run a token through the bundle; for its card, who computes what.

    Raises BundleError where it does not run, TargetError where nodes fall back and may not.
    """
    started = time.perf_counter()
    answer = ask("graph", folder)
    if answer.problem:
        raise BundleError(f"the bundle was built, and does not run: {answer.problem}")
    placement = Placement.read(answer.said)
    if placement.not_run:
        logger.warning("not run here: %s", placement.not_run)
    if not allow_fallback:
        placement.refuse_fallen(target.providers)
    logger.info("load check: %.2f s", time.perf_counter() - started)
    return placement.card(target.providers)


def _sequences(text: CalibrationText, folder: Path, prepared: Prepared) -> np.ndarray:
    """What a bundle is to be judged on, read before anything that takes long."""
    longest = prepared.context if prepared.target.needs.static else prepared.facts.context_length
    text = dataclasses.replace(text, length=min(text.length, longest))
    return text.sequences(Tokenizer.load(folder))


def _judge(
    folder: Path, manifest: Manifest, prepared: Prepared, sequences: np.ndarray, progress: Progress | None
) -> dict[str, Any]:
    """How good a bundle is, for its card. Raises GateError."""
    from edgewise.quality.judge import judge

    return judge(Bundle(folder, manifest), prepared, sequences, progress=progress)


def _measure(folder: Path, progress: Progress | None) -> dict[str, float | int | str]:
    """The speed of a bundle on this machine, for its card."""
    from edgewise.bench.host import processor
    from edgewise.bench.speed import measure
    from edgewise.runtime.runner import Runner
    from edgewise.runtime.threads import physical_cores

    with Runner.open(folder, verify=False) as runner:
        speed = measure(runner, progress=progress)
    return {
        "decode_tokens_per_s": round(speed.decode.mean, 1),
        "prefill_tokens_per_s": round(speed.prefill.mean, 1),
        "prompt_tokens": speed.prefill.tokens,
        "new_tokens": speed.decode.tokens,
        "threads": physical_cores(),
        "processor": processor(),
    }
