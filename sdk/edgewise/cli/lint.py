"""sdk, cli: `lint`: does a graph fit a device?"""

from dataclasses import asdict
from pathlib import Path

import click

from edgewise.cli.output import json_option, print_json


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.option("--target", help="A device by its name, or a profile by its path.  [default: the bundle's own]")
@json_option
def lint(graph: Path, target: str | None, as_json: bool) -> int:
    """Hold GRAPH, an ONNX file or a bundle, against what a device takes.

    Each finding is a sentence and a fix: lengths that are not fixed, operators and formats that the device does not
    have, or computes slowly. Nothing is run, and no weight is read. The exit code is 1 where there is a finding.

    \b
    Example:
      edgewise lint pycoder.edge
    """
    from edgewise.lint import lint as held_against
    from edgewise.lint.files import read_graphs
    from edgewise.registry import registry

    graphs, own = read_graphs(graph)
    if target is None and own is None:
        raise click.UsageError("an ONNX file does not say what it is for: give --target")
    device = registry().get_target(str(target or own))
    found = [(name, finding) for name, model in graphs.items() for finding in held_against(model, device)]
    if as_json:
        findings = [{"file": name, **asdict(finding)} for name, finding in found]
        print_json({"graph": str(graph), "target": device.name, "findings": findings})
    else:
        for name, finding in found:
            click.echo(f"{name}: {finding} [{finding.rule}]")
        if not found:
            click.echo(f"{graph} is fit for target '{device.name}'")
    return int(bool(found))
