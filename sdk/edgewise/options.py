"""sdk: a frozen dataclass is the schema of its options; this reads one from untyped data and writes it back.

The same declaration is the constructor, the schema of a recipe step or a profile, the text of the error for a
misspelt option, and the record in a bundle.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from edgewise.errors import OptionError

T = TypeVar("T")

TASK = "task"  # the field that tells one dataclass from another, where data may be of several


def known(names: typing.Iterable[str]) -> str:
    """The names, sorted, for the end of an error message."""
    return ", ".join(sorted(names)) or "none"


def unknown(kind: str, name: str, names: typing.Collection[str]) -> str:
    """One line for a name that is not known: what was asked, the closest, and all that there are.

    >>> unknown("pass", "quantise", ["prune", "quantize"])
    "no pass is named 'quantise'; did you mean 'quantize'? known: prune, quantize"
    """
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"no {kind} is named '{name}'; {hint}known: {known(names)}"


def parse(cls: type[T], data: Mapping[str, Any], *, what: str) -> T:
    """An instance of the dataclass `cls` from untyped data (TOML, JSON, command line).

    Unknown keys, missing keys and values of the wrong type raise OptionError, which begins with `what`.
    """
    required = {field.name for field in dataclasses.fields(cls) if _is_required(field)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping):
        of = f"with {known(required)}" if required else "of options"
        raise OptionError(f"{what}: expected a table {of}, got {data!r}")
    hints = _hints(cls)
    for key in data:
        if key not in hints:
            raise OptionError(f"{what}: {unknown('option', str(key), hints)}")
    if missing := required - set(data):
        raise OptionError(f"{what}: {known(missing)} must be given")
    values = {key: convert(hints[key], value, what=f"{what}: {key}") for key, value in data.items()}
    try:
        return cls(**values)
    except OptionError as error:
        raise OptionError(f"{what}: {error}") from error


def check(instance: Any) -> None:
    """Hold an instance that was made in Python to the types of its fields, as `parse` does. Raises OptionError."""
    for key, hint in _hints(type(instance)).items():
        convert(hint, getattr(instance, key), what=key)


def convert(hint: Any, value: Any, *, what: str) -> Any:
    """`value` as the type `hint`; lists become tuples or sets, tables dataclasses. Raises OptionError."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, what=what)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            raise OptionError(f"{what}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        return parse(typing.cast(type[Any], hint), value, what=what)
    if origin in (tuple, frozenset, Sequence):
        if isinstance(value, str | bytes) or not isinstance(value, Sequence | frozenset):
            raise OptionError(f"{what}: expected a list, got {value!r}")
        items = (convert(arguments[0], item, what=f"{what}[{i}]") for i, item in enumerate(value))
        return frozenset(items) if origin is frozenset else tuple(items)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise OptionError(f"{what}: expected a table, got {value!r}")
        return {
            _key(arguments[0], key, what=what): convert(arguments[1], item, what=f"{what}.{key}")
            for key, item in value.items()
        }
    return _convert_scalar(hint, value, what=what)


def record(instance: Any) -> dict[str, Any]:
    """The dataclass as plain data that `parse` reads back; options left at their default are not written."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if _is_required(field) or value != _default(field):
            plain[field.name] = _plain(value)
    return plain


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return record(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(map(_plain, value))
    return value


def _convert_union(hints: tuple[Any, ...], value: Any, *, what: str) -> Any:
    if value is None and type(None) in hints:
        return None
    problems = []
    hints = tuple(hint for hint in hints if hint is not type(None))
    if len(hints) > 1 and all(dataclasses.is_dataclass(hint) for hint in hints):
        return convert(_of_task(hints, value, what=what), value, what=what)
    for hint in hints:
        try:
            return convert(hint, value, what=what)
        except OptionError as error:
            problems.append(error)
    choices = [str(choice) for hint in hints[1:] if get_origin(hint) is Literal for choice in get_args(hint)]
    raise OptionError(f"{problems[0]}; or give {', '.join(choices)}") if choices else problems[0]


def _of_task(hints: tuple[Any, ...], value: Any, *, what: str) -> Any:
    """Which of several dataclasses a table is of: it states a `task`, or is of the one that has a default."""
    kinds = {task: hint for hint in hints for task in get_args(_hints(hint)[TASK])}
    defaults = [field.default for hint in hints for field in dataclasses.fields(hint) if field.name == TASK]
    stated = [default for default in defaults if default is not dataclasses.MISSING]
    task = value.get(TASK, *stated[:1]) if isinstance(value, Mapping) else None
    if task not in kinds:
        raise OptionError(f"{what}: {unknown('task', str(task), kinds)}")
    return kinds[task]


def _convert_scalar(hint: Any, value: Any, *, what: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _float(value, what=what)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        name = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise OptionError(f"{what}: expected {name.get(hint, hint)}, got {value!r}")
    return value


def _float(value: int, *, what: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise OptionError(f"{what}: a number of {len(str(value))} digits is too large") from error


def _key(hint: Any, key: Any, *, what: str) -> Any:
    """A key of a table: numbers are texts in TOML and JSON."""
    if hint is int:
        return int(key) if isinstance(key, str) and key.isdecimal() else key
    return convert(hint, key, what=what)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _hints(cls: type[Any]) -> dict[str, Any]:
    """The fields of a dataclass with their types, constructor fields only."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
