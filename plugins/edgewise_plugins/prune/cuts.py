"""plugins, prune: how far a model is cut, in layers, heads and neurons, and the next notch of each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgewise.graph import get_facts, linears
from edgewise.passes import Pass
from edgewise_plugins.prune.depth import PruneLayers
from edgewise_plugins.prune.heads import PruneHeads
from edgewise_plugins.prune.parts import rounded
from edgewise_plugins.prune.width import PruneWidth

NOTCHES = 8  # of the width, which are measured
FINEST = 64  # of it, by which what room is left is used


@dataclass(frozen=True)
class Cut:
    """Layers that are left, and shares of key-value heads and of neurons in each."""

    layers: int
    heads: float = 1.0
    width: float = 1.0


@dataclass(frozen=True)
class Axes:
    """What can be cut. heads, width: shares from 1 down; 1 alone where a model has no such units to spare."""

    layers: int
    heads: tuple[float, ...]
    width: tuple[float, ...]
    multiple: int
    damping: float

    @classmethod
    def of(cls, model: ir.Model, *, multiple: int, damping: float) -> "Axes":
        facts = get_facts(model)
        kv_heads = 1 if any(a.qk_norm == "full" for a in facts.attention) else max(a.kv_heads for a in facts.attention)
        width = max((linear.matrix.dims[1] for linear in linears(model) if linear.role == "mlp.down"), default=0)
        shares = [(NOTCHES - notch) / NOTCHES for notch in range(NOTCHES)]
        by_count = {rounded(share, width, multiple): share for share in reversed(shares)}
        return cls(
            facts.layers,
            tuple(count / kv_heads for count in range(kv_heads, 0, -1)),
            tuple(sorted(by_count.values(), reverse=True)),
            multiple,
            damping,
        )

    @property
    def whole(self) -> Cut:
        return Cut(self.layers)

    @property
    def least(self) -> Cut:
        return Cut(1, self.heads[-1], self.width[-1])

    def beside(self, cut: Cut, notches: int) -> Iterator[Cut]:
        """One axis at other notches, so many lower (or higher, where they are negative)."""
        if 1 <= cut.layers - notches <= self.layers:
            yield replace(cut, layers=cut.layers - notches)
        if heads := _beside(self.heads, cut.heads, notches):
            yield replace(cut, heads=heads)
        if width := _beside(self.width, cut.width, notches):
            yield replace(cut, width=width)

    def filled(self, cut: Cut, fits: Callable[[Cut], bool]) -> Cut:
        """With as many neurons more as there is room for, up to the next notch."""
        above = self.width[max(0, self.width.index(cut.width) - 1)]
        more = (replace(cut, width=share) for share in np.arange(above, cut.width, -1 / FINEST).tolist())
        return next(filter(fits, more), cut)

    def measured(self, cut: Cut) -> int:
        """About how many cuts are measured on the way to one: those beside each, and layers to find the next."""
        gone = self.layers - cut.layers
        return 3 * (gone + self.heads.index(cut.heads) + self.width.index(cut.width)) + (gone + 1) * self.layers

    def steps(self, cut: Cut) -> tuple[Pass, ...]:
        """Passes that make it."""
        return (
            *([PruneLayers(keep=cut.layers)] if cut.layers < self.layers else []),
            *([PruneHeads(keep=cut.heads, damping=self.damping)] if cut.heads < 1 else []),
            *([PruneWidth(keep=cut.width, multiple=self.multiple, damping=self.damping)] if cut.width < 1 else []),
        )


def _beside(shares: tuple[float, ...], share: float, notches: int) -> float | None:
    index = shares.index(share) + notches
    return shares[index] if 0 <= index < len(shares) else None
