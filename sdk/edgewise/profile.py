"""sdk: a target read from a TOML profile, with what it inherits from the profile that it extends."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import OptionError, TargetError
from edgewise.options import parse
from edgewise.recipe import read_steps
from edgewise.target import Target

OWN = ("name", "description", "aliases", "proof", "base")  # what a profile does not inherit
STEPS = ("recipe", "calibrated", "encoders", "lowering")
DEPTH = 8  # profiles behind one another

# What a profile may have from the one that it extends, for the time that each is held to the rules by itself.
SOME = {"name": "the provider", "library": "any"}
REQUIRED: Mapping[str, Any] = {"name": "any", "description": "any", "providers": [SOME]}


@dataclass(frozen=True)
class Profile:
    """A profile as it is written: its table, and the file or package that errors name."""

    table: Mapping[str, Any]
    where: str


Profiles = Callable[[str], Profile]  # the profile of a target, by its name


def read_target(text: str, *, where: str, profiles: Profiles) -> Target:
    """A target from TOML. Raises TargetError: one line, which begins with the file that is wrong, and names the key."""
    try:
        return _read(read_profile(text, where=where), profiles)
    except OptionError as error:
        raise TargetError(" ".join(str(error).split())) from error


def load_target(path: Path, *, profiles: Profiles) -> Target:
    """A user's own profile."""
    try:
        return read_target(path.read_text("utf-8"), where=str(path), profiles=profiles)
    except OSError as error:
        raise TargetError(f"target profile {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TargetError(f"target profile {path}: {error}") from error


def read_profile(text: str, *, where: str) -> Profile:
    """A profile from TOML, not held to anything yet. Raises TargetError for what is no TOML."""
    try:
        return Profile(tomllib.loads(text), where)
    except (ValueError, RecursionError) as error:  # beside TOMLDecodeError: numbers of thousands of digits
        raise TargetError(f"{where}: {' '.join(str(error).split())}") from error


def _read(profile: Profile, profiles: Profiles) -> Target:
    """Each profile of the line is checked by itself, so that an error names the file that it is in."""
    merged: Mapping[str, Any] = {}
    for part in [profile, *_extended(profile, profiles)]:
        table = _checked(part)
        if part is not profile:
            table = {key: value for key, value in table.items() if key not in OWN}
        merged = _merged(table, merged)
    return parse(Target, merged, what=profile.where)


def _extended(profile: Profile, profiles: Profiles) -> list[Profile]:
    """The profiles that this one extends: its own, that one's, and so on."""
    line: list[str] = []
    found: list[Profile] = []
    below = profile
    while isinstance(name := below.table.get("extends", ""), str) and name:
        if name in line or len(line) == DEPTH:
            raise TargetError(f"{profile.where}: extends: {' extends '.join([*line, name])}, without an end")
        try:
            below = profiles(name)
        except OptionError as error:
            raise TargetError(f"{below.where}: extends: {error}") from error
        line.append(name)
        found.append(below)
    return found


def _checked(profile: Profile) -> dict[str, Any]:
    """The table of one profile, its steps read, every value of it right."""
    table = dict(profile.table)
    for key in STEPS:
        if key in table:
            table[key] = read_steps(table[key], where=f"{profile.where}: {key}")
    parse(Target, {**REQUIRED, **table}, what=profile.where)
    return table


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, anything else replaces what was there; a figure and its source go together."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        tables = isinstance(old, Mapping) and isinstance(value, Mapping) and "value" not in old
        merged[key] = _merged(old, value) if tables else value  # type: ignore[arg-type]
    return merged
