"""sdk: edgewise packs a language model for the device it has to run on.

The public names, loaded when they are first used, so that the command line and a device stay light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgewise._version import __version__
from edgewise.extras import extras

if TYPE_CHECKING:
    from edgewise.bundle.read import Bundle, verify
    from edgewise.checkpoint import Checkpoint
    from edgewise.contracts import Exporter
    from edgewise.errors import EdgewiseError
    from edgewise.exporting import export
    from edgewise.facts import Facts
    from edgewise.hookspecs import hookimpl
    from edgewise.passes import Pass
    from edgewise.pipeline import build
    from edgewise.plan import Plan, plan_build
    from edgewise.recipe import Recipe, RecipeStep
    from edgewise.runtime.encoder import Encoder
    from edgewise.runtime.result import Result
    from edgewise.runtime.runner import Runner
    from edgewise.runtime.scheduler import Scheduler
    from edgewise.scaling.budget import Budget
    from edgewise.scaling.protocol import Scaler
    from edgewise.scaling.result import Scaled
    from edgewise.scaling.scale import scale
    from edgewise.scaling.verifier import Verifier
    from edgewise.search.protocol import Search
    from edgewise.target import Target

_HOMES = {
    "Budget": "edgewise.scaling.budget",
    "Bundle": "edgewise.bundle.read",
    "Checkpoint": "edgewise.checkpoint",
    "EdgewiseError": "edgewise.errors",
    "Encoder": "edgewise.runtime.encoder",
    "Exporter": "edgewise.contracts",
    "Facts": "edgewise.facts",
    "Pass": "edgewise.passes",
    "Plan": "edgewise.plan",
    "Recipe": "edgewise.recipe",
    "RecipeStep": "edgewise.recipe",
    "Result": "edgewise.runtime.result",
    "Runner": "edgewise.runtime.runner",
    "Scaled": "edgewise.scaling.result",
    "Scaler": "edgewise.scaling.protocol",
    "Scheduler": "edgewise.runtime.scheduler",
    "Search": "edgewise.search.protocol",
    "Target": "edgewise.target",
    "Verifier": "edgewise.scaling.verifier",
    "build": "edgewise.pipeline",
    "export": "edgewise.exporting",
    "hookimpl": "edgewise.hookspecs",
    "plan_build": "edgewise.plan",
    "scale": "edgewise.scaling.scale",
    "verify": "edgewise.bundle.read",
}

__all__ = [
    "Budget",
    "Bundle",
    "Checkpoint",
    "EdgewiseError",
    "Encoder",
    "Exporter",
    "Facts",
    "Pass",
    "Plan",
    "Recipe",
    "RecipeStep",
    "Result",
    "Runner",
    "Scaled",
    "Scaler",
    "Scheduler",
    "Search",
    "Target",
    "Verifier",
    "__version__",
    "build",
    "export",
    "hookimpl",
    "plan_build",
    "scale",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewise' has no attribute '{name}'")
    with extras():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
