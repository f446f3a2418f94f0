"""sdk, cli: `export`: the canonical graph of a checkpoint, or a checkpoint again, after the steps of a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.build import checkpoint_argument, force_option, ignore_option
from edgewise.cli.calibration import calibration_options, read_calibration
from edgewise.cli.output import json_option, print_json
from edgewise.cli.progress import bars

if TYPE_CHECKING:
    from edgewise.exporting import Form


@click.command()
@checkpoint_argument
@click.option("-o", "--output", required=True, metavar="FOLDER", help="The folder to write.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "safetensors"]),
    default="onnx",
    help="The graph, or its weights as a Hugging Face checkpoint.",
    show_default=True,
)
@click.option("--recipe", type=click.Path(path_type=Path), help="A TOML file of steps to apply first.")
@calibration_options
@click.option("--exporter", help="An exporter by its name, instead of the first that supports the checkpoint.")
@force_option
@ignore_option
@json_option
def export(
    checkpoint: str,
    output: str,
    form: "Form",
    recipe: Path | None,
    calibration_text: Path | None,
    calibration_tokens: int | None,
    calibration_length: int | None,
    seed: int | None,
    exporter: str | None,
    force: bool,
    ignore_config: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the canonical graph of CHECKPOINT, or a checkpoint again, after the steps of a recipe.

    The graph is standard ONNX in float32, committed to no device: what passes and lowerings start from. As
    safetensors, the same weights are a checkpoint that transformers loads: of a pruned and distilled model, say.

    \b
    Example:
      edgewise export examples/pycoder -o graph
      edgewise export examples/pycoder --format safetensors -o checkpoint
    """
    from edgewise.exporting import export

    calibration = read_calibration(calibration_text, calibration_tokens, calibration_length, seed)
    with bars() as progress:
        path = export(
            checkpoint,
            output,
            form=form,
            recipe=recipe,
            calibration=calibration,
            exporter=exporter,
            force=force,
            progress=progress,
            ignore_config=ignore_config,
        )
    print_json({"graph" if form == "onnx" else "checkpoint": str(path)}) if as_json else click.echo(path)
