"""sdk, cli: `build`: a checkpoint becomes a bundle for a device."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.calibration import calibration_options, read_calibration, read_quality
from edgewise.cli.output import json_option, print_json, size, talk
from edgewise.cli.plan import plain, text
from edgewise.cli.progress import bars
from edgewise.cli.recipe import recipe_options

if TYPE_CHECKING:
    from edgewise.bundle.read import Bundle
    from edgewise.prefill import Prefill
    from edgewise.recipe import Recipe

checkpoint_argument = click.argument("checkpoint")
force_option = click.option("--force", is_flag=True, help="Replace an output that exists.")
ignore_option = click.option(
    "--ignore-config", multiple=True, metavar="KEY", help="A key of config.json to leave out; repeat for more."
)
exporter_option = click.option(
    "--exporter", metavar="NAME", help="An exporter by its name, instead of the first that supports the checkpoint."
)


@click.command()
@checkpoint_argument
@click.option("--target", default="cpu-x64", show_default=True, help="A device by its name, or a profile by its path.")
@click.option("-o", "--output", metavar="BUNDLE", help="The folder to write.")
@recipe_options
@click.option("--context", type=int, help="Tokens that a session gets unless it asks for more or fewer.")
@click.option(
    "--prefill",
    type=click.Choice(["int8"]),
    help="A second graph, faster for long prompts; the plan says what it takes.",
)
@click.option("--hidden-states", is_flag=True, help="An output of hidden states too, which contrastive search needs.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and stop there.")
@click.option("--no-load-check", is_flag=True, help="Do not run a token through the finished bundle.")
@click.option("--allow-fallback", is_flag=True, help="Let the CPU compute what the target's provider does not take.")
@click.option(
    "--parity", type=int, default=0, metavar="TOKENS", help="Compute so many on accelerator and CPU, for the card."
)
@click.option("--measure", is_flag=True, help="Measure the bundle's speed on this machine, for its card.")
@calibration_options
@click.option(
    "--quality-text",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Text on which the bundle is held against the checkpoint, for its card and the recipe's gate.",
)
@click.option("--quality-tokens", type=int, metavar="N", help="How much of the text is used.  [default: 8192]")
@exporter_option
@force_option
@ignore_option
@json_option
def build(
    checkpoint: str,
    target: str,
    output: str | None,
    recipe: "Path | Recipe | None",
    context: int | None,
    prefill: "Prefill | None",
    hidden_states: bool,
    dry_run: bool,
    no_load_check: bool,
    allow_fallback: bool,
    parity: int,
    measure: bool,
    calibration_text: Path | None,
    calibration_tokens: int | None,
    calibration_length: int | None,
    seed: int | None,
    quality_text: Path | None,
    quality_tokens: int | None,
    exporter: str | None,
    force: bool,
    ignore_config: tuple[str, ...],
    as_json: bool,
) -> None:
    """Pack CHECKPOINT, a folder or a hub id, for a device.

    The plan comes first: what becomes of which part of the model, and whether it fits. A build that fails, or is
    killed, leaves whatever was at the output as it was.

    \b
    Example:
      edgewise build examples/pycoder --target cpu-x64 -o pycoder.edge
      edgewise build examples/pycoder --dry-run
    """
    calibration = read_calibration(calibration_text, calibration_tokens, calibration_length, seed)
    quality = read_quality(quality_text, quality_tokens)
    if dry_run:
        from edgewise.plan import plan_build

        plan = plan_build(
            checkpoint,
            target=target,
            recipe=recipe,
            context=context,
            ignore_config=ignore_config,
            calibration=calibration,
            prefill=prefill,
            exporter=exporter,
        )
        print_json(plain(plan)) if as_json else click.echo(text(plan))
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output': the folder to write.")
    from edgewise.pipeline import build

    with bars() as progress:
        bundle = build(
            checkpoint,
            target=target,
            output=output,
            recipe=recipe,
            context=context,
            force=force,
            load_check=not no_load_check,
            measure=measure,
            progress=progress,
            on_plan=lambda plan: talk(text(plan)),
            ignore_config=ignore_config,
            calibration=calibration,
            quality=quality,
            prefill=prefill,
            hidden_states=hidden_states,
            allow_fallback=allow_fallback,
            parity=parity,
            exporter=exporter,
        )
    _say(bundle, output, as_json=as_json)


def _say(bundle: "Bundle", output: str, *, as_json: bool) -> None:
    """What was written."""
    files = bundle.manifest.files
    total = sum(file.bytes for file in files.values())
    if as_json:
        print_json({"bundle": output, "bytes": total, "files": len(files), "card": bundle.manifest.card})
    else:
        click.echo(f"{output}: {size(total)} in {len(files)} files")
