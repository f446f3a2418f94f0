"""sdk, cli: `cascade calibrate`: when a small model's answer is not good enough, and a larger one is asked."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.output import json_option, print_json, print_table, talk
from edgewise.cli.progress import bars

if TYPE_CHECKING:
    from edgewise.tasks.cascade import Place

ROWS = 11  # of the curves that are printed
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def cascade() -> None:
    """Models in order of size: a larger one answers what a smaller one is not sure of.

    \b
    Example:
      edgewise cascade calibrate pycoder.edge pycoder.edge --tasks examples/pycoder/tasks.jsonl --max-tokens 6
    """


@cascade.command()
@click.argument("bundles", nargs=-1, required=True)
@click.option("--tasks", required=True, type=_FILE, help="JSON lines, as those of eval.")
@click.option("--share", type=float, help="Defer so many of the tasks at most, from 0 to 1.")
@click.option("--quality", type=float, help="Be as accurate, from 0 to 1, for as little time as it takes.")
@click.option("--quantile", type=float, default=0.1, show_default=True, help="Of token probabilities: how sure it was.")
@click.option("--extract", default="whole", show_default=True, help="Where an answer is in a text: last_number, ...")
@click.option("--max-tokens", type=int, help="New tokens of an answer at most.")
@click.option("--batch", type=int, default=1, show_default=True, help="Answers that are generated together.")
@json_option
def calibrate(
    bundles: Sequence[str],
    tasks: Path,
    share: float | None,
    quality: float | None,
    quantile: float,
    extract: str,
    max_tokens: int | None,
    batch: int,
    as_json: bool,
) -> None:
    """Find the thresholds of a cascade on tasks with answers, from the smallest of BUNDLES to the largest.

    Prints accuracy and cost against the share that is deferred, and with --share or --quality the thresholds for it.

    \b
    Example:
      edgewise cascade calibrate pycoder.edge pycoder.edge --tasks examples/pycoder/tasks.jsonl --max-tokens 6
    """
    from edgewise.scaling.likelihood import Likelihood
    from edgewise.tasks.answer import Method
    from edgewise.tasks.cascade import curve, with_quality, with_share
    from edgewise.tasks.evaluate import evaluate_tasks

    if share is not None and quality is not None:
        raise click.UsageError("Give one of '--share' and '--quality'.")
    options = {"search": "greedy", **({"max_tokens": max_tokens} if max_tokens else {})}
    method = Method(extract=extract, options=options, sure=Likelihood(quantile=quantile))
    with bars() as progress:
        found = [evaluate_tasks(each, tasks, method=method, batch=batch, progress=progress) for each in bundles]
    places = curve(found)
    chosen = None
    if share is not None or quality is not None:
        chosen = with_share(places, share) if share is not None else with_quality(places, quality or 0.0)
    if as_json:
        print_json({"chosen": chosen and asdict(chosen), "curve": [asdict(place) for place in places]})
        return
    print_table([_row(place) for place in _some(places)])
    if chosen:
        click.echo("")
        print_table([_row(chosen)])
        numbers = ",".join(map(repr, chosen.thresholds))
        others = " ".join(f"--assistant {each}" for each in bundles[1:])
        scaler = f"'cascade:thresholds=[{numbers}],verifier={{name=\"logprob\",quantile={quantile}}}'"
        length = f" --max-tokens {max_tokens}" if max_tokens else ""
        talk(f"use it with: edgewise run {bundles[0]} PROMPT --search greedy{length} --scale {scaler} {others}")


def _row(place: "Place") -> dict[str, str]:
    return {
        "deferred": f"{place.deferred:.1%}",
        "accuracy": f"{place.accuracy:.1%}",
        "tokens": f"{place.tokens:.1f}",
        "ms": f"{1000 * place.seconds:.1f}",
        "thresholds": ", ".join(f"{each:.4g}" for each in place.thresholds),
    }


def _some(places: Sequence["Place"]) -> list["Place"]:
    """About evenly along the share that is deferred."""
    wanted = [i / (ROWS - 1) for i in range(ROWS)]
    nearest = [min(places, key=lambda place: abs(place.deferred - share)) for share in wanted]
    return list(dict.fromkeys(nearest))
