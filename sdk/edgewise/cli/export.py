"""sdk, cli: `export`: the canonical graph of a checkpoint, or a checkpoint again, after the steps of a recipe."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.build import checkpoint_argument, exporter_option, force_option, ignore_option
from edgewise.cli.calibration import calibration_options, read_calibration
from edgewise.cli.output import json_option, print_json, print_table
from edgewise.cli.progress import bars

if TYPE_CHECKING:
    from edgewise.exporters import Appraisal
    from edgewise.exporting import Form


@click.command()
@checkpoint_argument
@click.option("-o", "--output", metavar="FOLDER", help="The folder to write.")
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
@exporter_option
@click.option("--list", "listed", is_flag=True, help="Say which exporters could take the checkpoint, and stop there.")
@force_option
@ignore_option
@json_option
def export(
    checkpoint: str,
    output: str | None,
    form: "Form",
    recipe: Path | None,
    calibration_text: Path | None,
    calibration_tokens: int | None,
    calibration_length: int | None,
    seed: int | None,
    exporter: str | None,
    listed: bool,
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
      edgewise export examples/pycoder --list
    """
    if listed:
        _list(checkpoint, ignore_config, as_json=as_json)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output': the folder to write.")
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


def _list(checkpoint: str, ignore_config: tuple[str, ...], *, as_json: bool) -> None:
    """What each exporter would give, in the order in which they are asked, or why it gives nothing."""
    from edgewise.contracts import Offer
    from edgewise.exporters import appraisals
    from edgewise.prepare import open_checkpoint

    found = appraisals(open_checkpoint(checkpoint, ignore_config=ignore_config))
    if as_json:
        print_json([_plain(each) for each in found])
        return
    print_table([_row(each) for each in found])
    for each in found:
        if said := each.verdict.lacks if isinstance(each.verdict, Offer) else each.verdict.reason:
            click.echo(f"{each.exporter}: {said}")


def _row(appraisal: "Appraisal") -> dict[str, str]:
    """One line of the table for people."""
    from edgewise.contracts import Offer

    offer = appraisal.verdict if isinstance(appraisal.verdict, Offer) else Offer("-", "-", "-")
    takes = "yes" if isinstance(appraisal.verdict, Offer) else "no"
    given = {"task": offer.task, "graph": offer.graph, "cache": offer.cache}
    return {"exporter": appraisal.exporter, "takes it": takes} | given


def _plain(appraisal: "Appraisal") -> dict[str, Any]:
    """One appraisal for JSON: `supports`, and the offer or the reason."""
    from edgewise.contracts import Offer

    supports = isinstance(appraisal.verdict, Offer)
    return {"exporter": appraisal.exporter, "package": appraisal.package, "supports": supports} | asdict(
        appraisal.verdict
    )
