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
    else:
        click.echo("\n".join(table(rows)))


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table: columns by their keys, numbers to the right."""
    if not rows:
        return ["none"]
    columns = [[str(key), *(_cell(row[key]) for row in rows)] for key in rows[0]]
    aligned = [_align(column) for column in columns]
    return ["  ".join(cells).rstrip() for cells in zip(*aligned, strict=True)]


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


def rate(tokens_per_s: float) -> str:
    """Tokens a second as people read them: `1,234`, `12.3`."""
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 100 else f"{tokens_per_s:.3g}"


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _align(column: list[str]) -> list[str]:
    width = max(map(len, column))
    right = all(cell[:1].isdigit() for cell in column[1:])
    return [cell.rjust(width) if right else cell.ljust(width) for cell in column]
