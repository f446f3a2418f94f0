"""sdk: the registry: every exporter, pass, target and search that is installed, by name, and whose it is.

Plugins are the entry points of the group `edgewise`, the built-in ones among them. One that does not load is a line
in `problems`, and everything else keeps working.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from edgewise import hookspecs
from edgewise.catalog import (
    Catalog,
    Entry,
    describe_class,
    describe_resource,
    load_class,
    one_line,
    read_resource,
)
from edgewise.errors import EdgewiseError, OptionError, PluginError
from edgewise.options import known
from edgewise.profile import Profile, load_target, read_profile, read_target
from edgewise.target import Target

if TYPE_CHECKING:
    from edgewise.contracts import Exporter
    from edgewise.passes import Pass
    from edgewise.scaling.protocol import Scaler
    from edgewise.scaling.verifier import Verifier
    from edgewise.search.protocol import Processor, Search
    from edgewise.search.stops import StopRule

GROUP = "edgewise"


@dataclass(frozen=True)
class Plugin:
    """One entry point: its name, the package it comes from with the version, and the hooks in its module."""

    name: str
    package: str
    version: str
    module: str
    hooks: tuple[str, ...]


class Registry:
    """What is installed, in catalogs: `registry().passes.get("quantize")`."""

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self.plugins: list[Plugin] = []
        self.problems: list[str] = []
        self._manager = pluggy.PluginManager("edgewise")
        self._manager.add_hookspecs(hookspecs)
        for point in points:
            self._load(point)
        self.exporters: Catalog[type[Exporter]] = self._classes("exporter", needs=("name", "supports", "export"))
        self.passes: Catalog[type[Pass]] = self._classes("pass", needs=("name", "call"))
        self.searches: Catalog[type[Search]] = self._classes("search", needs=("name", "flow"))
        self.processors: Catalog[type[Processor]] = self._classes("processor", needs=("start", "advance", "apply"))
        self.stop_rules: Catalog[type[StopRule]] = self._classes("stop rule", needs=("name", "check"))
        self.scalers: Catalog[type[Scaler]] = self._classes("scaler", needs=("name", "flow"))
        self.verifiers: Catalog[type[Verifier]] = self._classes("verifier", needs=("name", "judge"))
        self.targets: Catalog[Target] = self._fill(Catalog("target", self._load_target, describe_resource))

    def get_target(self, name: str) -> Target:
        """A device to build for: by its name or an alias, or a user's own profile by its path (it ends in .toml)."""
        target = self.find_target(name)
        if target.base:
            names = [other for other in self.devices() if self._named(self.targets.get(other).extends) == target.name]
            raise OptionError(f"target '{name}' is there for others to extend; build for one of them: {known(names)}")
        return target

    def find_target(self, name: str) -> Target:
        """The same, and also a target that is only there for others to extend."""
        if name.endswith(".toml"):
            return load_target(Path(name), profiles=self._profile)
        named = self._named(name)
        target = self.targets.get(named)
        if target.name != named:
            raise PluginError(f"target '{named}' of {self.targets.owner(named)} calls itself '{target.name}'")
        return target

    def devices(self) -> list[str]:
        """The names of all targets that can be built for: those that load, and are no base."""
        return [name for name in self.targets.names() if self._is_device(name)]

    def command_hooks(self) -> Iterator[tuple[str, Callable[..., object]]]:
        """For each plugin that adds commands: its package, and the hook that adds them to a group."""
        for impl in self._manager.hook.register_commands.get_hookimpls():
            yield self._owner(impl.plugin_name), impl.function

    def report(self, owner: str, problem: str) -> None:
        """Note what is wrong with a package's plugin; `edgewise plugins` shows it."""
        self.problems.append(f"{owner}: {problem}")

    def _load(self, point: EntryPoint) -> None:
        owner, version = (point.dist.name, point.dist.version) if point.dist else ("unknown package", "")
        name = f"{owner}:{point.name}"
        module = None
        try:
            module = point.load()
            self._manager.register(module, name=name)
            _refuse_unknown_hooks(self._manager, module)
        except (Exception, SystemExit) as error:
            if module is not None and self._manager.get_plugin(name) is module:
                self._manager.unregister(name=name)
            self.report(owner, f"plugin '{point.name}' did not load: {one_line(error)}")
        else:
            hooks = [caller.name for caller in self._manager.get_hookcallers(module) or []]
            self.plugins.append(Plugin(point.name, owner, version, point.value, tuple(sorted(hooks))))

    def _classes(self, kind: str, *, needs: tuple[str, ...]) -> Catalog[Any]:
        return self._fill(Catalog(kind, partial(load_class, needs=needs), describe_class))

    def _fill(self, catalog: Catalog[Any]) -> Catalog[Any]:
        hook = f"register_{catalog.plural}"
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            owner = self._owner(impl.plugin_name)
            try:
                names = impl.function()
            except (Exception, SystemExit) as error:
                self.report(owner, f"{hook}() failed: {one_line(error)}")
                continue
            for name, reference in _pairs(names):
                if isinstance(name, str) and _is_reference(reference):
                    catalog.add(name, Entry(reference, owner))
                else:
                    self.report(owner, f'{hook}() must return names and "module:Attribute" texts, got {names!r}')
        self.problems.extend(filter(None, map(catalog.clash, catalog.names())))
        return catalog

    def _load_target(self, entry: Entry) -> Target:
        return read_target(read_resource(entry), where=f"target profile {entry.reference}", profiles=self._profile)

    def _profile(self, name: str) -> Profile:
        """An installed profile, which another one extends."""
        entry = self.targets.entry(self._named(name))
        return read_profile(read_resource(entry), where=f"target profile {entry.reference}")

    def _named(self, name: str) -> str:
        """The name of the target that a name or an alias stands for; what is neither stays as it is."""
        if name in self.targets.names():
            return name
        found = [other for other in self.targets.names() if name in self._aliases(other)]
        if len(found) > 1:
            owners = " and ".join(f"'{other}' of {self.targets.owner(other)}" for other in found)
            raise PluginError(f"'{name}' is an alias of the targets {owners}; give one of their names")
        return found[0] if found else name

    def _is_device(self, name: str) -> bool:
        try:
            return not self.find_target(name).base
        except EdgewiseError:
            return False

    def _aliases(self, name: str) -> list[str]:
        """Other names of a target, as its profile says; none where it does not load."""
        try:
            aliases = self._profile(name).table.get("aliases", [])
        except (EdgewiseError, ImportError, OSError, ValueError):
            return []
        return aliases if isinstance(aliases, list) else []

    def _owner(self, plugin: str) -> str:
        return plugin.partition(":")[0]


@cache
def registry() -> Registry:
    """What is installed in this environment, looked up once."""
    return Registry(entry_points(group=GROUP))


def _refuse_unknown_hooks(manager: pluggy.PluginManager, module: ModuleType) -> None:
    """A misspelt hook would never be called, and nobody would know."""
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    for name in dir(module):
        if name not in hooks and manager.parse_hookimpl_opts(module, name) is not None:
            raise AttributeError(f"no hook is named '{name}'; known: {known(hooks)}")


def _pairs(names: Any) -> list[tuple[Any, Any]]:
    return list(names.items()) if isinstance(names, Mapping) else [(None, None)]


def _is_reference(reference: Any) -> bool:
    return isinstance(reference, str) and all(reference.partition(":"))
