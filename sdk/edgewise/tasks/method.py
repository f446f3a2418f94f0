"""sdk, tasks: how answers are found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgewise.errors import OptionError
from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.protocol import Scaler
from edgewise.scaling.scale import BUDGET
from edgewise.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Method:
    """Once through the model, or by a scaler within a budget for each task."""

    extract: str | Extract = "whole"
    samples: int = 1  # of a task with tests
    options: Mapping[str, Any] = field(default_factory=dict)  # of every generation
    scaler: Scaler | None = None
    budget: str = str(BUDGET)

    def __post_init__(self) -> None:
        if self.samples > 1 and self.scaler:
            raise OptionError("samples are for tests without a scaler, which draws samples itself")

    @property
    def label(self) -> str:
        if self.scaler:
            return f"{self.scaler.name}, budget {self.budget}"
        search = self.options.get("search") or "the checkpoint's search"
        name = search if isinstance(search, str) else search["name"] if isinstance(search, Mapping) else search.name
        return f"{name}, {self.samples} samples" if self.samples > 1 else str(name)

    def refuse_unanswerable(self, task: Task) -> None:
        """Raises OptionError for a task whose own answers hold none by this method."""
        extract = find_extract(self.extract)
        if task.kind == "answer" and all(extract(answer) is None for answer in task.answers):
            raise OptionError(f"task '{task.id}': '{self.extract}' finds nothing in {task.answers[0]!r}; see --extract")

    def data(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        options = {
            name: value if isinstance(value, str | int | float) else repr(value) for name, value in self.options.items()
        }
        scaler = repr(self.scaler) if self.scaler else None
        return {
            "extract": str(self.extract),
            "samples": self.samples,
            "scaler": scaler,
            "budget": self.budget,
            **options,
        }
