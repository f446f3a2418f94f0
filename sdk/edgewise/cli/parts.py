"""sdk, cli: searches, processors and stop rules as words of a command line: what they become for the runner."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_origin, get_type_hints

import click

from edgewise.catalog import Catalog
from edgewise.errors import OptionError

NAMED = re.compile(r"[\w-]+")
OPENING, CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Part:
    """A name with options, and a value for the first of them where it was given without its name."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    first: Any = None

    def table(self, catalog: Catalog[Any]) -> dict[str, Any]:
        """As `Runner.generate` takes it: `{"name": ..., options}`."""
        table = {"name": self.name, **self.options}
        if self.first is not None:
            kind = catalog.get(self.name)
            named = next((each.name for each in fields(kind)), None)
            if named is None:
                raise OptionError(f"{catalog.kind} '{self.name}' has no options, and {self.first!r} was given")
            many = get_origin(get_type_hints(kind)[named]) is tuple and not isinstance(self.first, list)
            table[named] = [self.first] if many else self.first
        return table


def part(text: str) -> Part:
    """`NAME`, `NAME=VALUE` (of the first option) or `NAME:KEY=VALUE,KEY=VALUE`."""
    found = NAMED.match(text)
    name = found[0] if found else ""
    sign, rest = text[len(name) : len(name) + 1], text[len(name) + 1 :]
    if not name or sign not in ("", "=", ":"):
        raise click.BadParameter(f"'{text}' is not of the form NAME, NAME=VALUE or NAME:KEY=VALUE,KEY=VALUE")
    if sign == ":":
        return Part(name, _once(map(setting, _split(rest))))
    return Part(name, first=plain(rest) if sign else None)


def read_part(_: click.Context, __: click.Parameter, text: str | None) -> Part | None:
    """The callback of an option that is a part."""
    return None if text is None else part(text)


def nested(settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Settings as a table: `search.top_k` is an option of what is named by the option `search`."""
    table: dict[str, Any] = {}
    for key, value in sorted(settings, key=lambda each: each[0].count(".")):  # names before their options
        *path, last = key.split(".")
        at = table
        for step in path:
            if not isinstance(at.setdefault(step, {}), dict):
                at[step] = {"name": at[step]}
            at = at[step]
        if last in at:
            raise _twice(key)
        at[last] = value
    return table


def _once(settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in settings:
        if key in table:
            raise _twice(key)
        table[key] = value
    return table


def _twice(key: str) -> click.BadParameter:
    return click.BadParameter(f"'{key}' is given twice; give it once")


def setting(text: str) -> tuple[str, Any]:
    """`key=value` as key and value."""
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"'{text}' is not of the form key=value, such as temperature=0.7")
    return key.strip(), plain(value)


def plain(text: str) -> Any:
    """A value as TOML has it: a number, true or false, a list, a quoted text; all else is text as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _split(text: str) -> list[str]:
    """At the commas that are within neither brackets nor quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in OPENING) - (character in CLOSING)
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts
