"""sdk: a target: one device as data, read from a TOML profile."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgewise.errors import OptionError, TargetError
from edgewise.options import parse
from edgewise.recipe import RecipeStep, read_steps


@dataclass(frozen=True)
class Number:
    """A figure of the hardware, with where it comes from."""

    value: float
    source: str
    kind: Literal["measured", "published", "estimated"]


@dataclass(frozen=True)
class Hardware:
    """What the plan holds a bundle against."""

    memory_bytes: Number | None = None  # None: what the machine at hand has


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime, with its options."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A device, and what a bundle for it looks like."""

    name: str
    description: str
    providers: tuple[Provider, ...]
    recipe: tuple[RecipeStep, ...] = ()  # what is done unless the user's own recipe replaces it
    calibrated: tuple[RecipeStep, ...] = ()  # what follows any recipe where there is a calibration text
    lowering: tuple[RecipeStep, ...] = ()  # the dialect of this device
    context: int = 4096  # tokens that a session gets unless it asks for more or fewer
    hardware: Hardware = Hardware()
    session: Mapping[str, str] = field(default_factory=dict)  # session configuration entries of ONNX Runtime

    def __post_init__(self) -> None:
        if self.context < 1:
            raise OptionError(f"context: {self.context} is not 1 or more")
        if not self.providers:
            raise OptionError("providers: none is given; one is CPUExecutionProvider")

    @classmethod
    def read(cls, text: str, *, where: str) -> "Target":
        """A profile from TOML. Raises TargetError, which begins with `where` and names the key."""
        try:
            data: dict[str, Any] = tomllib.loads(text)
            for key in ("recipe", "calibrated", "lowering"):
                data[key] = read_steps(data.get(key, ()), where=f"{where}: {key}")
            return parse(cls, data, what=where)
        except (tomllib.TOMLDecodeError, OptionError) as error:
            raise TargetError(str(error) if isinstance(error, OptionError) else f"{where}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> "Target":
        """A user's own profile."""
        try:
            return cls.read(path.read_text("utf-8"), where=str(path))
        except OSError as error:
            raise TargetError(f"target profile {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise TargetError(f"target profile {path}: {error}") from error
