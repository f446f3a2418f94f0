"""What the benchmark of quantization compares: a model that somebody's quantizer made, its scores and its cost."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from build import Cost

Scores = Callable[[np.ndarray], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Candidate:
    """A quantized model. `scores` of sequences come as float32 `[tokens, vocabulary]`, chunk by chunk."""

    name: str
    form: str  # bits and block
    bytes: int  # of the weights
    cost: Cost | None  # of the process that quantized it
    scores: Scores
    timer: tuple[Path, str, tuple[object, ...]]  # a worker: its Python, script and arguments


@dataclass(frozen=True)
class Failed:
    """A method that gave no model, and what it said."""

    name: str
    form: str
    problem: str

    @classmethod
    def of(cls, name: str, form: str, error: subprocess.CalledProcessError) -> "Failed":
        lines = str(error.stderr).strip().splitlines() or ["no message"]
        return cls(name, form, lines[-1])


def once(output: Path, make: Callable[[], Cost]) -> Cost:
    """What making `output` cost: now, or when an earlier run of the benchmark made it."""
    note = output.with_suffix(".cost.json")
    if output.exists() and note.exists():
        return Cost(**json.loads(note.read_text()))
    cost = make()
    note.write_text(json.dumps(asdict(cost)))
    return cost
