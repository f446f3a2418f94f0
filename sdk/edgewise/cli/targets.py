"""sdk, cli: `targets`: the devices that a bundle can be built for, and all that is known of one."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click

from edgewise.cli.output import json_option, print_json, print_table, table
from edgewise.errors import EdgewiseError
from edgewise.registry import registry
from edgewise.target import Lengths, Number, Target

PROOF = {
    "run": "bundles for it run for real where edgewise is tested",
    "emulated": "bundles for it are compiled and emulated where edgewise is tested",
    "specified": "by specification only: no bundle was run on it",
}
UNITS = {"memory": "B", "runtime": "B", "bandwidth": "B/s", "storage": "B/s", "power": "W", "dispatch": "s"}
OPERATIONS = ("compute", "kernels")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def targets(context: click.Context, as_json: bool) -> None:
    """List the devices that a bundle can be built for, or show one.

    \b
    Example:
      edgewise targets
      edgewise targets show h200
    """
    if context.invoked_subcommand is None:
        print_table([_row(name) for name in registry().targets.names()], as_json=as_json)


@targets.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show all that a profile says, what it inherits too, and where each number comes from.

    NAME is a target, an alias of one, or the path of a profile of your own.

    \b
    Example:
      edgewise targets show qnn-8-elite
      edgewise targets show qnn --json
    """
    target = registry().find_target(name)
    if as_json:
        print_json(asdict(target))
        return
    click.echo(f"{target.name}: {target.description}")
    for heading, lines in _sections(target).items():
        click.echo("\n".join(["", heading, *(f"  {key:<14}{value}".rstrip() for key, value in lines)]))
    if rows := _hardware(target):
        click.echo("\n" + "\n".join(table(rows)))


def _row(name: str) -> dict[str, str]:
    """A line of the list; a profile that does not load says why, and stands in no other's way."""
    installed = registry()
    proof: str
    try:
        target = installed.find_target(name)
        proof, text = "base" if target.base else target.proof, target.description
    except EdgewiseError as error:
        proof, text = "broken", str(error)
    return {"name": name, "proof": proof, "package": installed.targets.owner(name), "description": text}


def _sections(target: Target) -> dict[str, list[tuple[str, str]]]:
    """Everything but hardware, a line for each key; what a profile leaves open has none."""
    sections = {
        "device": [*_identity(target), *_lines(vars(target.device))],
        "runs on": [*_providers(target), *_lines({key: getattr(target, key) for key in ("threads", "session")})],
        "numbers": list(_lines(vars(target.numerics))),
        "graphs": list(_lines(vars(target.needs))),
        "build": list(_build(target)),
    }
    return {heading: lines for heading, lines in sections.items() if lines}


def _identity(target: Target) -> Iterator[tuple[str, str]]:
    yield "proof", "none: it is there for others to extend" if target.base else PROOF[target.proof]
    yield from _lines({key: getattr(target, key) for key in ("extends", "aliases")})


def _providers(target: Target) -> Iterator[tuple[str, str]]:
    for provider in target.providers:
        yield "provider", " ".join([provider.name, *_pairs(provider.options)])
        yield from _lines({key: getattr(provider, key) for key in ("library", "device")})
        if provider.extra:
            yield "install", f"pip install 'edgewise[{provider.extra}]'"


def _build(target: Target) -> Iterator[tuple[str, str]]:
    for key in ("recipe", "calibrated", "encoders", "lowering"):
        for step in getattr(target, key):
            yield key, f"{step.name}({', '.join(f'{name}={value}' for name, value in step.options.items())})"
    if target.compile:
        shared = ["weights shared by its graphs"] if target.compile.share_weights else []
        yield "compile", ", ".join(["ahead of time", *_pairs(target.compile.options), *shared])
        known = {"an operator": "code", "each parameter": "memory", "beside that": "runtime"}
        yield from _lines({f"compiler, {what}": getattr(target.compile, key) for what, key in known.items()})
    yield "context", f"{target.context} tokens"


def _hardware(target: Target) -> list[dict[str, str]]:
    return [
        {"hardware": name, "value": _quantity(name, number.value), "kind": number.kind, "source": number.source}
        for name, number in target.hardware.numbers()
    ]


def _lines(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if value:
            plain = _plain(value)
            yield key.replace("_", " "), ", ".join(map(str, plain)) if isinstance(plain, tuple | list) else str(plain)


def _plain(value: Any) -> Any:
    """A value as one would say it: pairs for tables, numbers with their sources."""
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, Number):
        return f"{_quantity('memory', value.value)} ({value.kind}: {value.source})"
    if isinstance(value, Lengths):
        return f"a graph for prompts, {value.prefill} tokens at once, and one that decodes"
    return value


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{key}={'|'.join(value) if isinstance(value, tuple) else value}" for key, value in table.items()]


def _quantity(name: str, value: float) -> str:
    """With its unit, and a prefix for thousands: `4.8 TB/s`; shares have none."""
    kind = name.partition(".")[0]
    unit = "op/s" if kind in OPERATIONS else UNITS.get(kind, "")
    if not unit or unit in "Ws":
        return f"{value:g} {unit}".rstrip()
    prefixes = ["", "k", "M", "G", "T", "P"]
    while value >= 1000 and len(prefixes) > 1:
        value, prefixes = value / 1000, prefixes[1:]
    return f"{value:.4g} {prefixes[0]}{unit}"
