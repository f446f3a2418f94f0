"""sdk: a target read from a TOML profile, with what it inherits from the profile that it extends."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgewise.errors import OptionError, TargetError
from edgewise.options import parse
from edgewise.recipe import read_steps
from edgewise.target import Target

OWN = ("aliases", "proof")  # what a profile does not inherit, beside its name and description
DEPTH = 8  # profiles behind one another

Profiles = Callable[[str], Mapping[str, Any]]  # the table of a profile that is extended, by its name


def read_target(text: str, *, where: str, profiles: Profiles) -> Target:
    """A target from TOML. Raises TargetError, which begins with `where` and names the key."""
    try:
        data = dict(inherit(read_table(text, where=where), profiles, where=where))
        for key in ("recipe", "calibrated", "lowering"):
            data[key] = read_steps(data.get(key, ()), where=f"{where}: {key}")
        return parse(Target, data, what=where)
    except OptionError as error:
        raise TargetError(str(error)) from error


def load_target(path: Path, *, profiles: Profiles) -> Target:
    """A user's own profile."""
    try:
        return read_target(path.read_text("utf-8"), where=str(path), profiles=profiles)
    except OSError as error:
        raise TargetError(f"target profile {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TargetError(f"target profile {path}: {error}") from error


def read_table(text: str, *, where: str) -> dict[str, Any]:
    """The table of a profile as it is written."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"{where}: {error}") from error


def inherit(table: Mapping[str, Any], profiles: Profiles, *, where: str) -> Mapping[str, Any]:
    """A profile's table with all that it inherits: tables are merged, anything else replaces what was there."""
    seen: list[str] = []
    while "extends" in table:
        parent = table["extends"]
        if not isinstance(parent, str):
            raise TargetError(f"{where}: extends: expected the name of a target, got {parent!r}")
        if parent in seen or len(seen) == DEPTH:
            raise TargetError(f"{where}: extends: {' extends '.join([*seen, parent])}, without an end")
        seen.append(parent)
        try:
            found = dict(profiles(parent))
        except OptionError as error:
            raise TargetError(f"{where}: extends: {error}") from error
        for key in OWN:
            found.pop(key, None)
        table = _merged(found, {key: value for key, value in table.items() if key != "extends"})
    return table


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and not _is_number(old)
        merged[key] = _merged(old, value) if both and old is not None else value
    return merged


def _is_number(table: Mapping[str, Any]) -> bool:
    """A figure and its source go together: they are replaced, not merged."""
    return "value" in table
