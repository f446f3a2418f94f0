"""sdk, cli: packages that others import, and our commands nearly never use, are loaded when they are first used.

`onnx_ir` imports sympy for arithmetic with symbolic lengths, of which a graph of ours has none: that is a third of the
time in which a plan is made.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

SELDOM = frozenset({"sympy", "onnx_ir._symbolic_shapes"})


class Seldom(MetaPathFinder):
    """Finds some modules as ever, and has the first use of an attribute load them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in SELDOM else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def load_seldom_ones_late() -> None:
    """For the rest of this process, which has to be our own."""
    if not any(isinstance(finder, Seldom) for finder in sys.meta_path):
        sys.meta_path.insert(0, Seldom())
