"""sdk, cli: `plugins`: which packages add what, and what is wrong with any of them."""

from dataclasses import asdict

import click

from edgewise.cli.output import json_option, print_json, print_table
from edgewise.registry import registry


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List the plugins, and what is wrong with any of them.

    \b
    Example:
      edgewise plugins
    """
    found = registry()
    rows = [asdict(plugin) for plugin in found.plugins]
    if as_json:
        print_json({"plugins": rows, "problems": found.problems})
        return
    print_table([row | {"hooks": [hook.removeprefix("register_") for hook in row["hooks"]]} for row in rows])
    for problem in found.problems:
        click.echo(f"problem: {problem}")
