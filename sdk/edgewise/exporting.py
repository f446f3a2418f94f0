"""sdk: what comes out of a checkpoint but a bundle: its canonical graph, or a checkpoint again, after a recipe."""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from edgewise.bundle.write import staged
from edgewise.calibration.texts import CalibrationText
from edgewise.checkpoint import CONFIG, GENERATION, WEIGHTS, Checkpoint
from edgewise.companions import Companions
from edgewise.contracts import CheckpointWriter
from edgewise.errors import OptionError, RecipeError
from edgewise.exporters import export_graph, exporter_for
from edgewise.passes import BuildContext
from edgewise.prepare import calibrate, open_checkpoint
from edgewise.recipe import Recipe
from edgewise.safetensors_writer import write_tensors
from edgewise.steps import apply, resolve
from edgewise.writer import Progress, write_model

Form = Literal["onnx", "safetensors"]


def export(
    checkpoint: str | Path | Checkpoint,
    output: str | Path,
    *,
    form: Form = "onnx",
    recipe: Recipe | Path | None = None,
    calibration: CalibrationText | None = None,
    exporter: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    ignore_config: Collection[str] = (),
) -> Path:
    """Write the canonical graph of a checkpoint: standard ONNX in float32, `model.onnx` in the folder `output`.

    With a recipe, as its steps leave the graph. As `safetensors`, the same weights as a Hugging Face checkpoint, for
    transformers or for another export. Gives the path of the weights or the graph.

    Raises CheckpointError, RecipeError, OptionError (an unknown exporter), BundleError (the output) and GraphError, for
    what a checkpoint of that family has no place for.
    """
    output = Path(output)
    with staged(output, force=force) as stage:
        source = open_checkpoint(checkpoint, ignore_config=ignore_config)
        model, companions = _after(recipe, source, exporter, calibration, progress)
        if form == "onnx":
            write_model(model, stage / "model.onnx", progress=progress)
            return output / "model.onnx"
        chosen = exporter_for(source, exporter)
        if not isinstance(chosen, CheckpointWriter):
            raise OptionError(f"exporter '{chosen.name}' writes no checkpoints: leave out --format safetensors")
        write_checkpoint(chosen.checkpoint(model, _rewritten(source, companions)), companions, stage, progress=progress)
    return output / WEIGHTS


def _after(
    recipe: Recipe | Path | None,
    source: Checkpoint,
    exporter: str | None,
    text: CalibrationText | None,
    progress: Progress | None,
) -> tuple[ir.Model, Companions]:
    """The canonical graph after the steps of a recipe, and the files that go with it.

    Where passes measure the model, they are tried dry first. Raises OptionError where none does, with a text.
    """
    chosen = Recipe.load(recipe) if isinstance(recipe, Path) else recipe or Recipe()
    passes = resolve(chosen.steps, where="recipe")
    exported = export_graph(source, exporter=exporter)
    for dry in (True, False) if text else (False,):
        model, companions = exported.clone(), Companions(source)
        calibration = calibrate(text, source, None, progress) if text else None
        context = BuildContext(calibration=calibration, companions=companions, reference=model.clone(), dry=dry)
        model = apply(model, passes, context, error=RecipeError)
    if calibration and not calibration.used:
        raise OptionError("no step of the recipe measures the model: a calibration text would change nothing")
    return model, companions


def _rewritten(source: Checkpoint, companions: Companions) -> Checkpoint:
    """The checkpoint with the configurations that passes have put in the place of its own."""
    tables = {name: companions.table(name) for name in (CONFIG, GENERATION) if name in companions.changed}
    config, generation = tables.get(CONFIG, source.config), tables.get(GENERATION, source.generation)
    return replace(source, config=config, generation=generation)


def write_checkpoint(
    checkpoint: Checkpoint, companions: Companions, folder: Path, *, progress: Progress | None = None
) -> None:
    """A checkpoint folder: its configuration, its weights, and the files that go with them."""
    (folder / CONFIG).write_text(json.dumps(dict(checkpoint.config), indent=2, sort_keys=True) + "\n", "utf-8")
    for name in companions.names:
        if name != CONFIG:
            (folder / name).write_bytes(companions.read(name))
    write_tensors(checkpoint.tensors, folder / WEIGHTS, progress=progress)
