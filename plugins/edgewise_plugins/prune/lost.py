"""plugins, prune: what cuts of a float model cost, several together: the KL divergence, measured in the same graph.

Matrices behind units that go (`o`, `down`) get zeros there, and are fitted anew to the units that are left, by what
enters them in the float model (see `eliminate`). A layer that goes adds nothing to the residual stream.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.statistics import Statistics
from edgewise.graph import Linear, Roles, get_facts
from edgewise.quality.sensitivity import Change, sensitivity
from edgewise.tensors import Streamed
from edgewise_plugins.prune.cuts import Axes, Cut
from edgewise_plugins.prune.depth import TOKENS, least_missed, merged, without
from edgewise_plugins.prune.eliminate import Moments, in_turn
from edgewise_plugins.prune.heads import heads_left
from edgewise_plugins.prune.heads import units as heads_of
from edgewise_plugins.prune.parts import floats, rounded

Levels = dict[float, dict[int, Change]]  # by the share of units that is left, and by layer


@dataclass
class Losses:
    """Measures cuts on a part of the calibration text."""

    model: ir.Model
    calibration: Calibration
    heads: Levels
    width: Levels
    gone: list[int] = field(default_factory=list)  # layers, in the order in which they go

    def __post_init__(self) -> None:
        self.sequences = self.calibration.part(TOKENS)
        self._order = least_missed(self.model, self.sequences)

    def of(self, cuts: Sequence[Cut]) -> list[float]:
        """The mean KL divergence of each."""
        changes = {str(number): self._change(cut) for number, cut in enumerate(cuts)}
        found = sensitivity(
            self.model,
            changes,
            self.sequences,
            context=self.calibration.context,
            progress=self.calibration.progress,
        )
        return list(found.values())

    def _change(self, cut: Cut) -> Change:
        layers = get_facts(self.model).layers
        while len(self.gone) < layers - cut.layers:
            self.gone.append(next(self._order)[0])
        gone = self.gone[: layers - cut.layers]
        by_layer = [self.heads.get(cut.heads, {}), self.width.get(cut.width, {})]
        kept = [change for changes in by_layer for number, change in changes.items() if number not in gone]
        return merged([*kept, *(without(self.model, number) for number in gone)])


def levels(model: ir.Model, axes: Axes, statistics: Statistics, folder: Path) -> tuple[Levels, Levels]:
    """Of heads and of neurons: the matrices behind them at each notch, in files of a folder."""
    by_node, roles, facts = floats(model, needed_by="prune"), Roles.of(model), get_facts(model)
    heads: Levels = {share: {} for share in axes.heads[1:]}
    width: Levels = {share: {} for share in axes.width[1:]}
    for number, a in enumerate(facts.attention):
        if heads:
            linear, units = by_node[roles.one("attention.o", number)], heads_of(a)
            counts = [heads_left(share, a.kv_heads) for share in heads]
            for share, change in zip(heads, _fitted(linear, units, counts, statistics, axes, folder), strict=True):
                heads[share][number] = change
        if width and (down := roles.maybe("mlp.down", number)):
            linear = by_node[down]
            units = np.arange(linear.matrix.dims[1])[:, None]
            counts = [rounded(share, len(units), axes.multiple) for share in width]
            for share, change in zip(width, _fitted(linear, units, counts, statistics, axes, folder), strict=True):
                width[share][number] = change
    return heads, width


def _fitted(
    linear: Linear, units: np.ndarray, counts: Sequence[int], statistics: Statistics, axes: Axes, folder: Path
) -> Iterator[Change]:
    """A matrix with fewer and fewer units, in the shape that it has; the best for what it gives now."""
    weights, gram = linear.matrix.numpy().astype(np.float32), statistics[linear.name].gram
    assert gram is not None
    nothing = np.zeros(len(gram)), np.zeros(len(weights))
    for found in in_turn(Moments(weights, gram, weights @ gram, *nothing), units, counts, damping=axes.damping):
        path = folder / f"{linear.name}.{len(found.units)}.npy"
        np.save(path, found.weights.T)
        yield {linear.name: _spread(path, units[found.units].ravel(), linear)}


def _spread(path: Path, inputs: np.ndarray, linear: Linear) -> Streamed:
    """`[inputs, outputs]`, as the graph has it, of which the file has some rows; the others are zeros."""
    columns, rows = linear.matrix.dims[::-1]

    def read(start: int, stop: int) -> np.ndarray:
        first, last = np.searchsorted(inputs, (start, stop))
        block = np.zeros((stop - start, rows), np.float32)
        block[inputs[first:last] - start] = np.load(path, mmap_mode="r")[first:last]
        return block

    return Streamed((columns, rows), ir.DataType.FLOAT, read, name=linear.name)
