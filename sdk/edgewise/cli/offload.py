"""sdk, cli: what `plan` says of experts that stay in storage."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import rate, size
from edgewise.cli.progress import bars
from edgewise.errors import TargetError

if TYPE_CHECKING:
    from edgewise.plan import Plan
    from edgewise.planner.offload import Offload, Residency

TOKENS, LENGTH = 8192, 512  # of the text whose routing is followed

resident_option = click.option(
    "--resident-experts", type=int, metavar="K", help="Keep K experts of a layer in memory; read others from storage."
)
text_option = click.option(
    "--text",
    "routed",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="For --resident-experts: a text, whose routing is followed.",
)


def read_offload(checkpoint: str, resident: int | None, text: Path | None, **options: Any) -> "Offload | None":
    """The prediction that was asked for; a usage error for one option without the other."""
    if (resident is None) != (text is None):
        raise click.UsageError("'--resident-experts' and '--text' go together: routing is followed on a text.")
    if resident is None or text is None:
        return None
    from edgewise.calibration.texts import CalibrationText
    from edgewise.offload import plan_offload

    with bars() as progress:
        return plan_offload(
            checkpoint, resident=resident, text=CalibrationText(text, TOKENS, LENGTH), progress=progress, **options
        )


def describe(found: "Offload") -> list[str]:
    """The prediction, as people read it."""
    return [
        f"offload   predicted, nothing runs that way yet: {found.resident} experts of a layer in memory, "
        f"{size(found.memory)} in all",
        f"          {_residency(found.popular)} where those stay that the text asks for most",
        f"          {_residency(found.recent)} where those stay that were used last",
        f"          {rate(found.all_resident)} tokens/s with all experts in memory",
    ]


def refuse(plan: "Plan", found: "Offload") -> None:
    """Raises TargetError where even the rest does not fit."""
    if plan.memory and found.memory > plan.memory.value * plan.usable:
        raise TargetError(
            f"target '{plan.target}' has {size(plan.memory.value * plan.usable)} of memory, and with {found.resident} "
            f"experts of a layer in it this model still takes {size(found.memory)}"
        )


def _residency(found: "Residency") -> str:
    return f"{rate(found.tokens_per_s)} tokens/s, {found.hits:.1%} of the experts at hand,"
