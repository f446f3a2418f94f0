"""plugins, prune: MLPs with fewer neurons: columns of `down`, with the rows of `gate` and `up` that make them.

Layer after layer, on a text: the neurons go whose loss the others make up for best, `down` is fitted anew to those that
are left, and later layers see what the earlier ones became (see `eliminate`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgewise.errors import OptionError
from edgewise.graph import Linear, Roles, get_facts
from edgewise.passes import Pass, calibration_of, context_of
from edgewise_plugins.prune.eliminate import Moments, Refit, check_damping, eliminate, refit
from edgewise_plugins.prune.observed import moments, refuse_too_few_tokens
from edgewise_plugins.prune.parts import check_multiple, check_share, floats, keep_rows, put, resize, rounded
from edgewise_plugins.views import take_columns

WIDE = ("mlp.gate", "mlp.gate.bias", "mlp.up", "mlp.up.bias", "mlp.activation", "mlp.product")

Criterion = Literal["reconstruction", "activation"]


@dataclass(frozen=True)
class PruneWidth(Pass):
    """Removes neurons from the MLPs: fewer bytes and less to compute, on every device, in proportion.

    `keep` is the share of neurons that stays, rounded up to a multiple of `multiple`. The criterion `reconstruction`
    removes those whose loss the others can make up for; `activation` those that are seldom far from zero, by the size
    of what they add. With `refit` the weights that stay are fitted anew, and a bias is added for what is gone.
    Needs a calibration text. Comes before `quantize`.
    """

    name: ClassVar[str] = "prune-width"

    keep: float = 0.75
    multiple: int = 128
    criterion: Criterion = "reconstruction"
    refit: bool = True
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping)
        check_share(self.keep)
        check_multiple(self.multiple)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'prune-width'")
        by_node, roles = floats(model, needed_by="prune-width"), Roles.of(model)
        downs = {n: by_node[node] for n in roles.layers() if (node := roles.maybe("mlp.down", n)) in by_node}
        if not downs:
            raise OptionError("no layer has an MLP: those of a mixture of experts are pruned by 'prune-experts'")
        widths = {number: down.matrix.dims[1] for number, down in downs.items()}
        if self.refit:
            refuse_too_few_tokens(calibration, max(widths.values()), needed_by="prune-width")
        counts = {number: rounded(self.keep, width, self.multiple) for number, width in widths.items()}
        if context_of(model).dry:
            for number, down in downs.items():
                chosen = np.arange(counts[number])
                down.replace(take_columns(down.matrix, chosen))
                _narrow(model, roles, by_node, number, chosen)
            return ir.passes.PassResult(model, modified=True)
        before = model.clone()
        with calibration.walk(model) as walk, calibration.walk(before) as along:
            along.progress = None
            for number in range(get_facts(model).layers):
                if number in downs:
                    found = self._choose(moments(walk, along, number, downs[number]), downs[number], counts[number])
                    put(model, downs[number], found.weights, found.bias if self.refit else None)
                    _narrow(model, roles, by_node, number, found.units)
                if along.position == number:
                    along.advance(number)
                walk.advance(number)
        return ir.passes.PassResult(model, modified=True)

    def _choose(self, measured: Moments, down: Linear, keep: int) -> Refit:
        units = np.arange(down.matrix.dims[1])[:, None]
        weights = down.matrix.numpy().astype(np.float32)
        if self.criterion == "reconstruction" and self.refit:
            return eliminate(measured, units, keep, damping=self.damping)
        if self.criterion == "reconstruction":
            chosen = eliminate(measured, units, keep, damping=self.damping).units
        else:
            sizes = measured.gram.diagonal() * (weights**2).sum(axis=0)
            chosen = np.sort(np.argsort(-sizes, kind="stable")[:keep])
        if self.refit:
            return refit(measured, units, chosen, damping=self.damping)
        return Refit(chosen, np.ascontiguousarray(weights[:, chosen]), np.zeros(len(weights), np.float32))


def _narrow(model: ir.Model, roles: Roles, by_node: dict[ir.Node, Linear], number: int, chosen: np.ndarray) -> None:
    """Leave the rows of these neurons in what makes them."""
    for role in ("mlp.gate", "mlp.up"):
        if node := roles.maybe(role, number):
            keep_rows(roles, by_node[node], chosen)
    resize(model, number, WIDE, len(chosen))
