"""tests: encoders of the bridge: tiny checkpoints with the graphs that torch traced of them (by optimum_models.py)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgewise.bundle.read import Bundle
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise_exporters.optimum import exporter
from edgewise_exporters.optimum.workplace import Workplace

ENCODERS = Path(__file__).parent / "fixtures" / "encoders"
TEXTS = (
    "hello there",
    "a cold day in the north; all is hers",
    "i do",
    "the day is cold, is it",
    "all the days in the cold north are hers, and she is there all day",
    "hello",
)


@contextmanager
def traced() -> Iterator[None]:
    """The exporter `optimum` takes the graph beside a checkpoint, where it would have torch trace one."""

    def copy(python: object, place: Workplace, task: str) -> None:
        (weights,) = place.checkpoint.glob("*.safetensors")
        shutil.copyfile(weights.resolve().parent / "model.onnx", place.output / "model.onnx")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "run", copy)
        patch.setattr(exporter, "find_python", lambda: Path("python"))
        yield


def packed(source: Path, output: Path, *, recipe: Recipe | None = None, **options: Any) -> Bundle:
    """A bundle of a checkpoint whose graph is beside it."""
    with traced():
        return build(source, output=output, recipe=recipe, **{"load_check": False, **options})
