"""sdk, cli: `export`: only the canonical graph of a checkpoint."""

import click

from edgewise.cli.build import checkpoint_argument, force_option, ignore_option
from edgewise.cli.output import json_option, print_json
from edgewise.cli.progress import bars


@click.command()
@checkpoint_argument
@click.option("-o", "--output", required=True, metavar="FOLDER", help="The folder to write.")
@click.option("--exporter", help="An exporter by its name, instead of the first that supports the checkpoint.")
@force_option
@ignore_option
@json_option
def export(
    checkpoint: str,
    output: str,
    exporter: str | None,
    force: bool,
    ignore_config: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write only the canonical graph of CHECKPOINT.

    It is standard ONNX in float32, committed to no device: what passes and lowerings start from.

    \b
    Example:
      edgewise export examples/pycoder -o graph
    """
    from edgewise.pipeline import export

    with bars() as progress:
        path = export(
            checkpoint, output, exporter=exporter, force=force, progress=progress, ignore_config=ignore_config
        )
    print_json({"graph": str(path)}) if as_json else click.echo(path)
