"""sdk, cli: the options that name a text to measure a model on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import size

if TYPE_CHECKING:
    from edgewise.calibration.plan import CalibrationPlan
    from edgewise.calibration.texts import CalibrationText

QUALITY_TOKENS = 8192

OPTIONS = (
    click.option(
        "--calibration-text",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help='Text for passes that measure the model: a file, JSON lines with a "text", or a folder of such files.',
    ),
    click.option("--calibration-tokens", type=int, metavar="N", help="How much of the text is used.  [default: 32768]"),
    click.option("--calibration-length", type=int, metavar="N", help="Tokens of a sequence.  [default: 512]"),
    click.option("--seed", type=int, help="Which part of the text is used, where it has more.  [default: 0]"),
)


def calibration_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--calibration-text` and what goes with it."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def read_calibration(
    text: Path | None, tokens: int | None, length: int | None, seed: int | None
) -> "CalibrationText | None":
    """The options as one value; a usage error where they are given without a text."""
    given = {"tokens": tokens, "length": length, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    if text is None:
        if options:
            raise click.UsageError("--calibration-tokens, --calibration-length and --seed need a --calibration-text.")
        return None
    from edgewise.calibration.texts import CalibrationText

    return CalibrationText(text, **options)


def read_quality(text: Path | None, tokens: int | None) -> "CalibrationText | None":
    """The same of the text that a bundle is judged on."""
    if text is None:
        if tokens is not None:
            raise click.UsageError("--quality-tokens needs a --quality-text.")
        return None
    from edgewise.calibration.texts import CalibrationText

    return CalibrationText(text, QUALITY_TOKENS if tokens is None else tokens)


def describe(plan: "CalibrationPlan") -> str:
    """One line of a build's plan."""
    return (
        f"to measure {plan.sequences} sequences of {plan.length} tokens: up to {size(plan.memory)} of memory and "
        f"{size(plan.disk)} of disk, about {_duration(plan.seconds)}"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
