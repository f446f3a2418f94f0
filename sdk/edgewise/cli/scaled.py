"""sdk, cli: `run --scale`: an answer for which more is computed than once through the model."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import print_json, talk
from edgewise.cli.parts import Part

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner
    from edgewise.scaling.result import Scaled


def run_scaled(
    runner: "Runner", prompt: str, scaler: Part, budget: str | None, options: Mapping[str, Any], *, as_json: bool
) -> None:
    """Print the answer, and on stderr why it is this one and what it took."""
    from edgewise.registry import registry
    from edgewise.scaling.scale import BUDGET, scale

    given = dict(options)
    models = (runner, *given.pop("assistants"))
    scaled = scale(models, prompt, scaler.table(registry().scalers), budget=budget or BUDGET, **given)
    if as_json:
        print_json({"text": scaled.text, "answer": scaled.answer, **asdict(scaled)})
    else:
        click.echo(scaled.text)
    say_spent(scaled)


def say_spent(scaled: "Scaled") -> None:
    """Why it is this answer and what it took, on one line of talk."""
    spent = scaled.spent
    parts = [f"{scaled.answer!r}: {scaled.why}" if scaled.best.answer is not None else scaled.why]
    parts.append(f"{spent.samples} samples, {spent.tokens} tokens in {spent.seconds:.2f} s")
    if spent.energy.joules is not None:
        parts.append(f"{spent.energy.joules:.3g} J")
    if scaled.early:
        parts.append("settled before the budget was spent")
    talk("; ".join(parts))
