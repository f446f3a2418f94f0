"""sdk: every door for plugins, on one screen.

A plugin is a module under the entry-point group `edgewise`. Hooks return values and import nothing heavy: what they
return maps a name to `"package.module:Attribute"`, loaded when it is first used.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("edgewise")
hookimpl = pluggy.HookimplMarker("edgewise")


@hookspec
def register_exporters() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Exporters (checkpoint to canonical graph), by name: classes that satisfy `edgewise.Exporter`."""


@hookspec
def register_passes() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Passes and lowerings, by the name that a recipe uses: subclasses of `edgewise.Pass`."""


@hookspec
def register_targets() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Target profiles, by name: `"package:file.toml"`, a TOML file inside an import package."""


@hookspec
def register_searches() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Searches, by name: subclasses of `edgewise.Search`."""


@hookspec
def register_processors() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Processors of scores (penalties, bans, grammars), by name."""


@hookspec
def register_stop_rules() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Rules that end a generation, by name."""


@hookspec
def register_scalers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Ways to spend compute on a prompt, by name: subclasses of `edgewise.Scaler`."""


@hookspec
def register_verifiers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """What says how good an answer is, by name: subclasses of `edgewise.Verifier`."""


@hookspec
def register_commands(cli: "click.Group") -> None:
    """Add commands to the command line: `cli.add_command(...)`."""
