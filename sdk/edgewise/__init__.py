"""sdk: edgewise packs a language model for the device it has to run on.

The public names, loaded when they are first used, so that the command line and a device stay light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgewise._version import __version__

if TYPE_CHECKING:
    from edgewise.checkpoint import Checkpoint
    from edgewise.contracts import Exporter
    from edgewise.errors import EdgewiseError
    from edgewise.facts import Facts
    from edgewise.hookspecs import hookimpl
    from edgewise.passes import Pass
    from edgewise.recipe import Recipe, RecipeStep
    from edgewise.search.protocol import Search
    from edgewise.target import Target

_HOMES = {
    "Checkpoint": "edgewise.checkpoint",
    "EdgewiseError": "edgewise.errors",
    "Exporter": "edgewise.contracts",
    "Facts": "edgewise.facts",
    "Pass": "edgewise.passes",
    "Recipe": "edgewise.recipe",
    "RecipeStep": "edgewise.recipe",
    "Search": "edgewise.search.protocol",
    "Target": "edgewise.target",
    "hookimpl": "edgewise.hookspecs",
}

__all__ = [
    "Checkpoint",
    "EdgewiseError",
    "Exporter",
    "Facts",
    "Pass",
    "Recipe",
    "RecipeStep",
    "Search",
    "Target",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewise' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
