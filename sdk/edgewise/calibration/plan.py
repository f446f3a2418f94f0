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

LIBRARIES = 150 << 20  # the interpreter, ONNX Runtime, the graph
SHORTEST = 16  # tokens of a sequence that would be advised
FLOAT = 4


@dataclass(frozen=True)
class LayerCost:
    """What one layer takes."""

    held: int  # bytes that do not depend on the text: weights, sums
    token: int  # bytes of what is computed for each token
    heads: int
    flops: float  # for each token


@dataclass(frozen=True)
class CalibrationPlan:
    """A calibration of so many sequences of one length; sizes in bytes."""

    sequences: int
    length: int
    layers: tuple[LayerCost, ...]
    embedding: int
    hidden: int  # of one token
    stored: int  # the file of statistics

    @property
    def memory(self) -> int:
        """Expected peak."""
        rows = max(1, BATCH_TOKENS // self.length)
        batch = min(rows, self.sequences)
        scores = 2 * FLOAT * batch * self.length**2
        largest = max(c.held + c.token * batch * self.length + scores * c.heads for c in self.layers)
        return LIBRARIES + max(largest, min(self.embedding, self.tokens * self.hidden))

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
    def seconds(self) -> float:
        """Expected, at the speed that this machine has at this moment."""
        return self.flops / measured_flops()

    def refuse_what_does_not_fit(self, folder: Path) -> None:
        """Raises OptionError, which says what would fit, where memory or the disk of `folder` is too small."""
        memory, disk = available_memory(), free_disk(folder)
        if memory is not None and self.memory > memory:
            raise OptionError(
                f"calibration takes about {_gb(self.memory)} of memory, and {_gb(memory)} are available; "
                f"{self._advice(memory)}"
            )
        if self.disk > disk:
            tokens = max(0, disk - self.stored) // (3 * self.hidden)
            raise OptionError(
                f"calibration takes about {_gb(self.disk)} in {folder.parent}, where {_gb(disk)} are free; "
                f"{tokens:,} tokens would fit, or set EDGEWISE_CACHE to a folder with more room"
            )

    def _advice(self, memory: int) -> str:
        length = self.length
        while (length := length // 2) >= SHORTEST:
            shorter = dataclasses.replace(self, sequences=self.tokens // length, length=length)
            if shorter.memory <= memory:
                return f"sequences of {length} tokens would fit, with {_gb(shorter.memory)}"
        return f"its largest layer alone takes {_gb(max(cost.held for cost in self.layers))}"


def plan_statistics(model: ir.Model, shape: tuple[int, ...], *, gram: bool = False) -> CalibrationPlan:
    """The plan for statistics on `shape` (sequences, length), of a model as it is now."""
    facts, inputs = get_facts(model), linears_by_input(model)
    widths = _computed(model)
    sizes = [[group[0].matrix.dims[1] for group in shared.values()] for shared in inputs.values()]
    return CalibrationPlan(
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
