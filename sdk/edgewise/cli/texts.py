"""sdk, cli: the texts that `embed` and `classify` are given: as arguments, in a file, or on stdin, one a line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgewise.errors import GenerationError

Command = Callable[..., Any]


def texts_options(command: Command) -> Command:
    """The arguments TEXTS, and a file in their place."""
    command = click.option(
        "--file",
        "source",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help='A file of texts, one a line; "-" is stdin, which is read where there are no TEXTS.',
    )(command)
    return click.argument("texts", nargs=-1)(command)


def given_texts(texts: tuple[str, ...], source: Path | None) -> list[str]:
    """The texts of a command. Raises GenerationError for what is no text, and for an empty line, by its number."""
    if texts and source:
        raise click.UsageError("Give TEXTS or '--file', not both.")
    if texts:
        return list(texts)
    where = "stdin" if source is None or str(source) == "-" else str(source)
    content = sys.stdin.buffer.read() if where == "stdin" else Path(where).read_bytes()
    try:
        lines = [line.removesuffix("\r") for line in content.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise GenerationError(f"{where} is not UTF-8: byte {error.start} is invalid") from error
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise GenerationError(f"{where}, line {number} is empty: each line is a text; take it out")
    return lines
