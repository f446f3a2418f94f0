"""sdk, calibration: what a calibration takes, from shapes alone: memory, disk and time, before it starts."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgewise.calibration.gram import PANEL
from edgewise.calibration.resources import free_disk, measured_flops
from edgewise.calibration.stages import BATCH_TOKENS, linears_by_input
from edgewise.errors import OptionError
from edgewise.facts import Attention
from edgewise.graph import Linear, get_facts, layer
from edgewise.memory import available_memory

LIBRARIES = 180 << 20  # the interpreter, ONNX Runtime, the graph: 130 to 160 MiB, by system
SHORTEST = 16  # tokens of a sequence that would be advised
FLOAT = 4


@dataclass(frozen=True)
class Cost:
    """What measuring takes: bytes of memory and of disk at most, floating-point operations."""

    memory: int
    disk: int
    flops: float

    def refuse_what_does_not_fit(self, folder: Path, *, less_memory: str, less_disk: str) -> None:
        """Raises OptionError, which ends with what to do, where memory or the disk of `folder` is too small."""
        memory, disk = available_memory(), free_disk(folder)
        if memory is not None and self.memory > memory:
            raise OptionError(
                f"calibration takes about {_gb(self.memory)} of memory, and {_gb(memory)} are available; {less_memory}"
            )
        if self.disk > disk:
            raise OptionError(
                f"calibration takes about {_gb(self.disk)} in {folder}, where {_gb(disk)} are free; "
                f"{less_disk}, or set EDGEWISE_CACHE to a folder with more room"
            )


@dataclass(frozen=True)
class CalibrationPlan:
    """What the steps of a build take to measure a model on so many sequences of one length; sizes in bytes."""

    sequences: int
    length: int
    costs: tuple[Cost, ...]  # of the steps, one after the other

    @property
    def memory(self) -> int:
        return max(cost.memory for cost in self.costs)

    @property
    def disk(self) -> int:
        return max(cost.disk for cost in self.costs)

    @property
    def seconds(self) -> float:
        """Expected of all steps, at the speed that this machine has at this moment."""
        return sum(cost.flops for cost in self.costs) / measured_flops()

    def refuse_what_does_not_fit(self, folder: Path) -> None:
        """Raises OptionError where a step takes more than there is."""
        for cost in self.costs:
            cost.refuse_what_does_not_fit(
                folder,
                less_memory="a shorter --calibration-length, or a method that measures less, takes less",
                less_disk="fewer --calibration-tokens take less",
            )


@dataclass(frozen=True)
class LayerCost:
    """What one layer takes."""

    held: int  # bytes that do not depend on the text: weights, sums
    token: int  # bytes of what is computed for each token
    heads: int
    flops: float  # for each token


@dataclass(frozen=True)
class StatisticsPlan:
    """What statistics on so many sequences of one length take; sizes in bytes."""

    sequences: int
    length: int
    layers: tuple[LayerCost, ...]
    embedding: int
    hidden: int  # of one token
    stored: int  # the file of statistics

    @property
    def memory(self) -> int:
        """Expected peak."""
        return LIBRARIES + max(self.layer, min(self.embedding, self.tokens * self.hidden))

    @property
    def layer(self) -> int:
        """Of the largest layer, at work."""
        batch = min(max(1, BATCH_TOKENS // self.length), self.sequences)
        scores = 2 * FLOAT * batch * self.length**2
        return max(c.held + c.token * batch * self.length + scores * c.heads for c in self.layers)

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    @property
    def disk(self) -> int:
        return 3 * self.tokens * self.hidden + self.stored

    @property
    def flops(self) -> float:
        return self.tokens * sum(cost.flops for cost in self.layers)

    @property
    def cost(self) -> Cost:
        return Cost(self.memory, self.disk, self.flops)

    def refuse_what_does_not_fit(self, folder: Path) -> None:
        """Raises OptionError, which says what would fit, where memory or the disk of `folder` is too small."""
        tokens = max(0, free_disk(folder) - self.stored) // (3 * self.hidden)
        self.cost.refuse_what_does_not_fit(
            folder.parent, less_memory=self._advice(available_memory() or 0), less_disk=f"{tokens:,} tokens would fit"
        )

    def _advice(self, memory: int) -> str:
        length = self.length
        while (length := length // 2) >= SHORTEST:
            shorter = dataclasses.replace(self, sequences=self.tokens // length, length=length)
            if shorter.memory <= memory:
                return f"sequences of {length} tokens would fit, with {_gb(shorter.memory)}"
        return f"its largest layer alone takes {_gb(max(cost.held for cost in self.layers))}"


def plan_statistics(model: ir.Model, shape: tuple[int, ...], *, gram: bool = False) -> StatisticsPlan:
    """The plan for statistics on `shape` (sequences, length), of a model as it is now."""
    facts, inputs = get_facts(model), linears_by_input(model)
    widths = _computed(model)
    sizes = [[group[0].matrix.dims[1] for group in shared.values()] for shared in inputs.values()]
    return StatisticsPlan(
        sequences=shape[0],
        length=shape[1],
        layers=tuple(
            _cost(attention, inputs.get(index, {}), widths.get(index, 0), shape[1], gram=gram)
            for index, attention in enumerate(facts.attention)
        ),
        embedding=facts.vocab_size * facts.hidden_size * FLOAT,
        hidden=facts.hidden_size * FLOAT,
        stored=sum(FLOAT * (k * k * gram + 3 * k) for layer in sizes for k in layer),
    )


def _cost(a: Attention, inputs: dict[str, list[Linear]], width: int, length: int, *, gram: bool) -> LayerCost:
    sizes = [group[0].matrix.dims[1] for group in inputs.values()]
    parameters = sum(math.prod(linear.matrix.dims) for group in inputs.values() for linear in group)
    sums = [k * k + 2 * k * min(k, PANEL) for k in sizes] if gram else [3 * k for k in sizes]
    flops = 2 * parameters + 4 * length * a.heads * a.head_dim + gram * sum(k * k for k in sizes)
    return LayerCost(FLOAT * (parameters + sum(sums)), FLOAT * (width + max(sizes, default=0)), a.heads, float(flops))


def _computed(model: ir.Model) -> dict[int | None, int]:
    """Numbers that each layer computes for a token, all of its nodes together."""
    widths: dict[int | None, int] = {}
    for node in model.graph:
        widths[layer(node)] = widths.get(layer(node), 0) + sum(_widths(node))
    return widths


def _widths(node: ir.Node) -> Iterator[int]:
    for value in node.outputs:
        yield math.prod(size for size in value.shape or () if isinstance(size, int))


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
