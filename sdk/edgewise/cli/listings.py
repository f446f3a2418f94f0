"""sdk, cli: `passes`, `exporters`, `searches` and more: what is installed of each kind, and the options of one."""

import inspect
from dataclasses import asdict
from typing import Any

import click

from edgewise.catalog import Catalog
from edgewise.cli.output import json_option, print_json, print_table
from edgewise.describe import options
from edgewise.registry import registry


def listing(plural: str, text: str) -> click.Command:
    """The command that lists one catalog of the registry."""

    @json_option
    def command(as_json: bool) -> None:
        print_table(_rows(getattr(registry(), plural)), as_json=as_json)

    return click.command(plural, help=f"{text}\n\n\b\nExample:\n  edgewise {plural}")(command)


def detailed(plural: str, text: str, example: str) -> click.Command:
    """The same for classes with options: with a name, it shows that one."""

    @click.argument("name", required=False)
    @json_option
    def command(name: str | None, as_json: bool) -> None:
        catalog = getattr(registry(), plural)
        if name is None:
            print_table(_rows(catalog), as_json=as_json)
        else:
            _show(catalog.get(name), as_json=as_json)

    name = plural.replace("_", "-")
    examples = f"\n\n\b\nExample:\n  edgewise {name}\n  edgewise {name} {example}"
    return click.command(name, help=f"{text} With NAME, show its options.{examples}")(command)


def _rows(catalog: Catalog[Any]) -> list[dict[str, str]]:
    return [
        {"name": name, "package": catalog.owner(name), "description": catalog.describe(name)}
        for name in catalog.names()
    ]


def _show(kind: type[Any], *, as_json: bool) -> None:
    text, known = inspect.getdoc(kind) or "", options(kind)
    if as_json:
        print_json({"description": text, "options": [asdict(option) for option in known]})
        return
    click.echo("\n".join([text, "", *(map(str, known) if known else ["It has no options."])]))


passes = detailed("passes", "List the passes: the steps of recipes, and lowerings.", "quantize")
exporters = listing("exporters", "List what turns checkpoints into graphs.")
searches = detailed("searches", "List the ways to choose tokens.", "sample")
processors = detailed("processors", "List what changes the scores of tokens before one is chosen.", "grammar")
stop_rules = detailed("stop_rules", "List what can end a text.", "loop")
scalers = detailed("scalers", "List the ways to spend more on an answer.", "self-consistency")
verifiers = detailed("verifiers", "List what says how good an answer is.", "logprob")
