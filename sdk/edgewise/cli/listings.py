"""sdk, cli: `targets`, `passes`, `exporters`, `searches`: what is installed of each kind."""

from typing import Any

import click

from edgewise.catalog import Catalog
from edgewise.cli.output import json_option, print_table
from edgewise.registry import registry


def listing(plural: str, what: str) -> click.Command:
    """The command that lists one catalog of the registry."""

    @json_option
    def command(as_json: bool) -> None:
        print_table(_rows(getattr(registry(), plural)), as_json=as_json)

    text = f"List the {plural} that are installed: {what}.\n\n\b\nExample:\n  edgewise {plural}"
    return click.command(plural, help=text)(command)


def _rows(catalog: Catalog[Any]) -> list[dict[str, str]]:
    return [
        {"name": name, "package": catalog.owner(name), "description": catalog.describe(name)}
        for name in catalog.names()
    ]


targets = listing("targets", "the devices that a bundle can be built for")
passes = listing("passes", "the steps of a recipe and the lowerings of a target")
exporters = listing("exporters", "what turns a checkpoint into a graph")
searches = listing("searches", "the ways to choose the next token")
