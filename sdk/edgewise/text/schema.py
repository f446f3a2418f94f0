"""sdk, text: the keywords of a JSON schema: one that nobody acts on would be a promise that is not kept."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from edgewise.errors import OptionError

# fmt: off
_NOTES = {  # they say something about a value, and nothing about which values there may be
    "$anchor", "$comment", "$id", "$schema", "id", "title", "description", "default", "examples", "deprecated",
    "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "contentSchema", "discriminator",
}
_RULES = {
    "$ref", "type", "enum", "const", "format", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "required", "minProperties", "maxProperties",
    "minItems", "maxItems",
}
# fmt: on
_NESTED = {"items", "additionalItems", "prefixItems", "additionalProperties", "allOf", "anyOf", "oneOf"}
_BY_NAME = {"properties", "patternProperties", "$defs", "definitions"}  # schemas by names of the user's
KEYWORDS = _NOTES | _BY_NAME | _NESTED | _RULES


def check_keywords(schema: Any) -> None:
    """Raises OptionError for a keyword that is neither kept nor a mere note; those that begin with `x-` are notes."""
    for where, key in _keywords(schema, "#"):
        if key not in KEYWORDS and not key.startswith("x-"):
            close = difflib.get_close_matches(key, KEYWORDS, n=1)
            meant = f"did you mean '{close[0]}'?" if close else f"where it is only a note, name it 'x-{key}'"
            raise OptionError(
                f"json_schema: at {where}: the keyword '{key}' is not known, and would be ignored; {meant}"
            )


def _keywords(schema: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every keyword with the place of its schema, those of schemas in schemas included."""
    if isinstance(schema, list):
        for number, item in enumerate(schema):
            yield from _keywords(item, f"{where}/{number}")
    if not isinstance(schema, Mapping):
        return
    for key, value in schema.items():
        yield where, key
        if key in _NESTED:
            yield from _keywords(value, f"{where}/{key}")
        elif key in _BY_NAME and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from _keywords(inner, f"{where}/{key}/{name}")
