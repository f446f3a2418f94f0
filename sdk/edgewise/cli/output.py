"""sdk, cli: what commands print: a table for people, JSON for programs; both on stdout."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, Any]], *, as_json: bool = False) -> None:
    """Rows of one shape under their keys; as JSON, a list of objects."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        click.echo("none")
        return
    lines = [[str(key) for key in rows[0]], *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def talk(text: str) -> None:
    """Something to read that is not the result: on stderr."""
    click.echo(text, err=True)


def size(count: float) -> str:
    """Bytes as people read them: `5.8 MB`; powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
