"""sdk, tasks: what an evaluation found, as one record that can be kept and compared."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewise.bench.energy import Energy
from edgewise.bench.host import Host
from edgewise.errors import OptionError
from edgewise.options import parse
from edgewise.tasks.metrics import Figure

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Item:
    """One task, answered."""

    id: str
    kind: str
    variant: str = ""  # how its prompt was perturbed; empty: as it is
    right: float  # 1 or 0; of several samples, the share that pass
    f1: float | None = None
    confidence: float | None = None  # of the model in what it said, from 0 to 1; of several samples, on average
    score: float | None = None  # what a scaler ranked it by
    model: int = 0  # which one said it, where a scaler asks several
    nats: float | None = None  # of a text: its negative log-likelihood
    bytes: int = 0
    passed: int = 0  # of `samples`, where there are tests
    samples: int = 1
    text: str = ""  # what it said
    finish_reason: str = ""
    tokens: int = 0  # new ones, of all samples
    seconds: float = 0.0
    first_s: float | None = None  # to the first token


@dataclass(frozen=True)
class Efficiency:
    """What answering took."""

    seconds: float  # of all, batches as they were
    tokens: int
    tokens_per_s: float
    latency_s: Figure  # of an answer: median and interval of it
    first_token_s: Figure | None
    between_tokens_s: dict[str, float]  # p50, p95, p99 of all gaps between one token of an answer and the next
    peak_memory_bytes: int | None
    energy: Energy
    cost: float | None = None  # of all, in the currency of the table of prices
    cost_per_right: float | None = None
    seconds_per_right: float | None = None
    tokens_per_right: float | None = None
    joules_per_right: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What `edgewise eval --tasks --json` prints."""

    format: int
    bundle: str
    bundle_blake3: str
    tasks: str
    tasks_blake3: str
    method: str  # "greedy", "self-consistency, budget 16"
    options: dict[str, Any]
    host: Host
    batch: int  # answers that were generated together
    figures: dict[str, Figure]
    efficiency: Efficiency
    items: tuple[Item, ...] = field(default=())

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """One that was saved. Raises OptionError for what is none."""
        try:
            data = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise OptionError(f"{path}: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT or "figures" not in data:
            raise OptionError(f"{path} is not what this edgewise's `eval --tasks --json` prints (format {FORMAT})")
        return parse(cls, data, what=str(path))

    def data(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return dataclasses.asdict(self)

    @property
    def accuracy(self) -> Figure | None:
        """The headline: of tasks as they are; None where nothing is right or wrong."""
        return self.figures.get("accuracy")
