"""sdk, search: searches, processors and rules by name, and the texts that they were given."""

from collections.abc import Mapping
from typing import Any, TypeVar

from edgewise.catalog import Catalog
from edgewise.errors import OptionError
from edgewise.options import parse
from edgewise.search.protocol import Bindable, Search, Vocabulary

T = TypeVar("T")
Named = str | Mapping[str, Any]  # "dry", or {"name": "dry", "multiplier": 0.8}


def bound(part: T, vocabulary: Vocabulary) -> T:
    """A search, processor or rule with the texts that it was given looked up in the vocabulary."""
    return part.bind(vocabulary) if isinstance(part, Bindable) else part


def find_search(search: Search | Named, vocabulary: Vocabulary) -> Search:
    """Raises OptionError for what is not a search, and for options that it does not have."""
    if not isinstance(search, Search | str | Mapping):
        raise OptionError(f"search is {search!r}; it must be the name of a search, or a search with its options")
    from edgewise.registry import registry

    return bound(search if isinstance(search, Search) else named(search, registry().searches, "search"), vocabulary)


def named(given: Named, catalog: Catalog[Any], what: str) -> Any:
    """What a name, or a table with a name and options, stands for."""
    options = {"name": given} if isinstance(given, str) else dict(given)
    name = options.pop("name", None)
    if not isinstance(name, str):
        hint = ", on the command line --set search=NAME" if what == "search" else ""
        raise OptionError(f"a {what} without a name: {given!r}; give it as {{'name': ..., options}}{hint}")
    return parse(catalog.get(name), options, what=f"{what} '{name}'")
