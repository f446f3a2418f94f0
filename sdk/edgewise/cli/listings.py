"""sdk, cli: `targets`, `passes`, `exporters`, `searches`: what is installed of each kind."""

from typing import Any

import click

from edgewise.catalog import Catalog
from edgewise.cli.output import json_option, print_table
from edgewise.registry import registry


def listing(plural: str, text: str) -> click.Command:
    """The command that lists one catalog of the registry."""

    @json_option
    def command(as_json: bool) -> None:
        print_table(_rows(getattr(registry(), plural)), as_json=as_json)

    return click.command(plural, help=f"{text}\n\n\b\nExample:\n  edgewise {plural}")(command)


def _rows(catalog: Catalog[Any]) -> list[dict[str, str]]:
    return [
        {"name": name, "package": catalog.owner(name), "description": catalog.describe(name)}
        for name in catalog.names()
    ]


targets = listing("targets", "List the devices that a bundle can be built for.")
passes = listing("passes", "List the passes: the steps of recipes, and lowerings.")
exporters = listing("exporters", "List what turns checkpoints into graphs.")
searches = listing("searches", "List the ways to choose the next token.")
