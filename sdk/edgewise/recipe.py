"""sdk: a recipe: ordered steps, each a pass by name with its options, read from TOML.

[[step]]
pass = "quantize"
bits = 4
block_size = 128

[gate]                  # with --quality-text: what the bundle must reach
max_mean_kld = 0.03
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewise.errors import OptionError, RecipeError
from edgewise.options import parse
from edgewise.quality.gate import Gate


@dataclass(frozen=True)
class RecipeStep:
    """The name of a pass and its options as they were written; the pass itself checks them."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        return {"pass": self.name, **self.options}


@dataclass(frozen=True)
class Recipe:
    """What is done to a model on its way to a target, and what it must still be able to do then."""

    steps: tuple[RecipeStep, ...] = ()
    gate: Gate | None = None

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a TOML file. Raises RecipeError, which names the file."""
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise RecipeError(f"recipe {path}: {error.strerror}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(f"recipe {path}: {error}") from error
        if extra := set(data) - {"step", "gate"}:
            raise RecipeError(f"recipe {path}: unknown key '{min(extra)}'; a recipe has [[step]] tables and a [gate]")
        try:
            gate = parse(Gate, data["gate"], what=f"recipe {path}: gate") if "gate" in data else None
        except OptionError as error:
            raise RecipeError(str(error)) from error
        return cls(read_steps(data.get("step", []), where=f"recipe {path}"), gate)


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
