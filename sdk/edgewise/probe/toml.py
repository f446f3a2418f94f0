"""sdk, probe: plain data and figures of hardware as TOML (https://toml.io/en/v1.0.0)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def lines(table: Mapping[str, Any], *above: str) -> Iterator[str]:
    """The lines of a table: first its values, then the tables in it. What is None is left out."""
    values = {key: value for key, value in table.items() if value is not None}
    inner = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    for key, value in values.items():
        if key not in inner:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in inner.items():
        yield from ("", f"[{'.'.join(map(_key, (*above, key)))}]")
        yield from lines(value, *above, key)


def _value(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return "{ " + ", ".join(f"{f.name} = {_value(getattr(value, f.name))}" for f in fields(value)) + " }"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value) if not isinstance(value, bool) else str(value).lower()


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else _quoted(key)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
