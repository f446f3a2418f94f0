"""sdk, cli: `cascade calibrate`: when a small model's answer is not good enough, and a larger one is asked."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import json_option, print_json, print_table, talk
from edgewise.cli.parts import Part, part, read_part
from edgewise.cli.progress import bars

if TYPE_CHECKING:
    from edgewise.tasks.cascade import Place, Rule

ROWS = 11  # of a curve that are printed
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PART = "NAME[:KEY=VALUE,...]"
LEAST_SURE = "logprob:quantile=0.1"


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
@click.option(
    "--verifier",
    metavar=_PART,
    callback=read_part,
    help=f"What says whether an answer will do, such as votes or judge.  [default: {LEAST_SURE}]",
)
@click.option("--samples", type=int, default=1, show_default=True, help="Answers that are scored together, for votes.")
@click.option("--extract", default="whole", show_default=True, help="Where an answer is in a text: last_number, ...")
@click.option("--max-tokens", type=int, help="New tokens of an answer at most.")
@click.option("--search", metavar=_PART, callback=read_part, help="How tokens are chosen.  [default: as in run]")
@json_option
def calibrate(
    bundles: Sequence[str],
    tasks: Path,
    share: float | None,
    quality: float | None,
    verifier: Part | None,
    samples: int,
    extract: str,
    max_tokens: int | None,
    search: Part | None,
    as_json: bool,
) -> None:
    """Find the thresholds of a cascade on tasks with answers, from the smallest of BUNDLES to the largest.

    Prints accuracy against the share that is deferred, and against cost; with --share or --quality also the thresholds
    for it, and the command that uses them. An answer is deferred by how sure the model was, by how many of its samples
    agree (--verifier votes --samples 5), or by any other verifier.

    \b
    Example:
      edgewise cascade calibrate pycoder.edge pycoder.edge --tasks examples/pycoder/tasks.jsonl --max-tokens 6
    """
    from edgewise.registry import registry
    from edgewise.tasks.cascade import Goal, Rule, alone, curve, each_alone

    goal = Goal(share=share, quality=quality)
    rule = Rule(verifier=(verifier or part(LEAST_SURE)).table(registry().verifiers), samples=samples)
    given = {"max_tokens": max_tokens, "search": search and search.table(registry().searches)}
    options = {name: value for name, value in given.items() if value is not None}
    with bars() as progress:
        found = each_alone(bundles, tasks, rule, extract=extract, options=options, progress=progress)
    places = curve(found)
    chosen = goal.reached(places)
    if as_json:
        models = [asdict(each) for each in alone(found)]
        print_json({"alone": models, "chosen": chosen and asdict(chosen), "curve": [asdict(each) for each in places]})
        return
    _print_curves(bundles, alone(found), places)
    if chosen:
        click.echo("\nchosen:")
        print_table([_row(chosen)])
        talk(f"use it with: {_command(bundles, rule, chosen, options)}")


def _print_curves(bundles: Sequence[str], models: Sequence["Place"], places: Sequence["Place"]) -> None:
    from edgewise.tasks.cascade import cheapest

    click.echo("each alone:")
    print_table([{"bundle": name, **_cost(each)} for name, each in zip(bundles, models, strict=True)])
    click.echo("\nby the share that is deferred:")
    print_table([_row(place) for place in _some(places, lambda place: place.deferred)])
    click.echo("\nby cost, the cheapest for each accuracy:")
    print_table([_row(place) for place in _some(cheapest(places), lambda place: place.seconds)])


def _cost(place: "Place") -> dict[str, str]:
    return {
        "accuracy": f"{place.accuracy:.1%}",
        "tokens": f"{place.tokens:.1f}",
        "ms": f"{1000 * place.seconds:.1f}",
    }


def _row(place: "Place") -> dict[str, str]:
    thresholds = ", ".join(f"{each:.4g}" for each in place.thresholds)
    return {"deferred": f"{place.deferred:.1%}", **_cost(place), "thresholds": thresholds}


def _some(places: Sequence["Place"], axis: Callable[["Place"], float]) -> list["Place"]:
    """About evenly along an axis."""
    least, most = min(map(axis, places)), max(map(axis, places))
    wanted = [least + (most - least) * i / (ROWS - 1) for i in range(ROWS)]
    nearest = [min(places, key=lambda place: abs(axis(place) - value)) for value in wanted]
    return list(dict.fromkeys(nearest))


def _command(bundles: Sequence[str], rule: "Rule", chosen: "Place", options: Mapping[str, Any]) -> str:
    """What puts a prompt to the cascade as it was calibrated."""
    settings: dict[str, Any] = {"thresholds": list(chosen.thresholds), "verifier": rule.verifier}
    if rule.samples > 1:
        settings["samples"] = rule.samples
    words = ["edgewise", "run", bundles[0], "PROMPT"]
    search = dict(options.get("search") or {})
    if search:
        words += ["--search", search.pop("name")]
        words += [word for name, value in search.items() for word in ("--set", f"{name}={_toml(value)}")]
    if length := options.get("max_tokens"):
        words += ["--max-tokens", str(length)]
    words += ["--scale", "cascade:" + ",".join(f"{name}={_toml(value)}" for name, value in settings.items())]
    words += [word for each in bundles[1:] for word in ("--assistant", each)]
    return shlex.join(words)


def _toml(value: Any) -> str:
    """A value as it is written within a line of TOML."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}={_toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
