"""sdk: a catalog: what is installed of one kind, by name, each loaded when it is first used."""

import ast
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from edgewise.errors import EdgewiseError, OptionError, PluginError
from edgewise.extras import extras
from edgewise.options import unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Where a name leads: `"package.module:Attribute"` or `"package:file.toml"`, and the package that says so."""

    reference: str
    owner: str


class Catalog(Generic[T]):
    """Everything installed of one kind. A name that two packages claim is an error when it is used."""

    def __init__(self, kind: str, load: Callable[[Entry], T], describe: Callable[[Entry], str]) -> None:
        self.kind = kind
        self._load = load
        self._describe = describe
        self._entries: dict[str, list[Entry]] = {}
        self._loaded: dict[str, T] = {}

    @property
    def plural(self) -> str:
        """As in the name of its hook: `stop_rules`, `passes`."""
        name = self.kind.replace(" ", "_")
        return name + ("es" if name.endswith(("s", "ch")) else "s")

    def add(self, name: str, entry: Entry) -> None:
        self._entries.setdefault(name, []).append(entry)

    def names(self) -> list[str]:
        return sorted(self._entries)

    def owner(self, name: str) -> str:
        """The package that provides a name (two that claim it are both named)."""
        return " and ".join(sorted(entry.owner for entry in self._find(name)))

    def describe(self, name: str) -> str:
        """One line about it, without importing it; empty where there is none, or where it is not to be had."""
        try:
            return self._describe(self._find(name)[0])
        except (ImportError, OSError, SyntaxError, ValueError):
            return ""

    def get(self, name: str) -> T:
        """What the name stands for. Raises OptionError (unknown), PluginError (clash, broken) or MissingExtra."""
        entry = self.entry(name)
        if name not in self._loaded:
            try:
                self._loaded[name] = self._load(entry)
            except EdgewiseError:
                raise
            except (Exception, SystemExit) as error:
                where = f"{self.kind} '{name}' of {entry.owner} did not load from {entry.reference}"
                raise PluginError(f"{where}: {one_line(error)}") from error
        return self._loaded[name]

    def entry(self, name: str) -> Entry:
        """Where the name leads. Raises OptionError (unknown) or PluginError (clash)."""
        entries = self._find(name)
        if len(entries) > 1:
            raise PluginError(self.clash(name))
        return entries[0]

    def clash(self, name: str) -> str:
        """One line for a name with more than one owner; empty otherwise."""
        if len(self._find(name)) < 2:
            return ""
        return f"{self.kind} '{name}' is claimed by {self.owner(name)}; uninstall one of them to use it"

    def _find(self, name: str) -> list[Entry]:
        if name not in self._entries:
            raise OptionError(unknown(self.kind, name, self._entries))
        return self._entries[name]


def one_line(error: BaseException) -> str:
    """The kind and the text of an error, whatever it holds, on one line."""
    text = " ".join(str(error).split())
    return text if text and type(error) is Exception else f"{type(error).__name__}: {text}".rstrip(": ")


def load_class(entry: Entry, *, needs: tuple[str, ...]) -> Any:
    """The class that `"package.module:Class"` names; TypeError where it lacks what its kind needs."""
    module, _, attribute = entry.reference.partition(":")
    with extras():
        found = getattr(import_module(module), attribute)
    if not isinstance(found, type):
        raise TypeError(f"expected a class, got {found!r}")
    if lacking := [name for name in needs if not hasattr(found, name)]:
        raise TypeError(f"the class has no '{lacking[0]}'")
    return found


def read_resource(entry: Entry) -> str:
    """The text of the file that `"package:file.toml"` names."""
    package, _, name = entry.reference.partition(":")
    return files(package).joinpath(name).read_text("utf-8")


def describe_class(entry: Entry) -> str:
    """The first line of a class's docstring, read from the source: listing must not import what it lists."""
    module, _, attribute = entry.reference.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            return (ast.get_docstring(node) or "").partition("\n")[0]
        if isinstance(node, ast.ImportFrom) and attribute in (alias.name for alias in node.names):
            return describe_class(Entry(f"{node.module}:{attribute}", entry.owner))
    return ""


def describe_resource(entry: Entry) -> str:
    """The description in a profile."""
    return str(tomllib.loads(read_resource(entry)).get("description", ""))
