"""sdk: a recipe: ordered steps, each a pass by name with its options, read from TOML.

[[step]]
pass = "quantize"
bits = 4
block_size = 128
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewise.errors import RecipeError


@dataclass(frozen=True)
class RecipeStep:
    """The name of a pass and its options as they were written; the pass itself checks them."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        return {"pass": self.name, **self.options}


@dataclass(frozen=True)
class Recipe:
    """What is done to a model on its way to a target."""

    steps: tuple[RecipeStep, ...] = ()

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a TOML file. Raises RecipeError, which names the file."""
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(f"recipe {path}: {error}") from error
        if extra := set(data) - {"step"}:
            raise RecipeError(f"recipe {path}: unknown key '{min(extra)}'; a recipe is a list of [[step]] tables")
        return cls(read_steps(data.get("step", []), where=f"recipe {path}"))


def read_steps(tables: Any, *, where: str) -> tuple[RecipeStep, ...]:
    """`[[step]]` tables of TOML or JSON as steps. Raises RecipeError, which begins with `where`."""
    if not isinstance(tables, list | tuple):
        raise RecipeError(f"{where}: expected a list of tables, each with its pass, got {tables!r}")
    steps = []
    for number, table in enumerate(tables, start=1):
        if not isinstance(table, Mapping) or not isinstance(table.get("pass"), str):
            raise RecipeError(f'{where}: step {number} must name its pass: pass = "quantize"')
        steps.append(RecipeStep(table["pass"], {key: value for key, value in table.items() if key != "pass"}))
    return tuple(steps)
