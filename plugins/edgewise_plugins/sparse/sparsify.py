"""plugins, sparse: the pass: weights of the layers are set to zero, by one of three methods."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgewise.errors import GraphError, OptionError
from edgewise.graph import Linear, layer_matrices, remark
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.quantized import BlockQuantized
from edgewise.target import Target
from edgewise_plugins.sparse.cost import sparsegpt_cost
from edgewise_plugins.sparse.pattern import GROUP, PAIR, Pattern
from edgewise_plugins.sparse.score import without_lowest

Method = Literal["magnitude", "wanda", "sparsegpt"]


@dataclass(frozen=True)
class Sparsify(Pass):
    """Sets weights of the layers to zero: `sparsity` of each matrix, or by the pattern "2:4" two of every four inputs.

    Zeros are stored and multiplied like all other weights: they make nothing smaller or faster, but for a device whose
    profile says that it skips them. The plan says which it is.

    Methods: `magnitude` removes the smallest weights of each row; `wanda` those that count least in it, by the size of
    their inputs; `sparsegpt` makes up for each of them with the weights that stay. The last two need a calibration
    text. The embedding, the lm_head and routers are left alone. Comes after `rotate` and the `prune` passes, which
    leave no zeros, and before `quantize`, whose methods keep them (but `autoround`, which learns the rounding of zeros
    too). A step `distill` after it keeps them.
    """

    name: ClassVar[str] = "sparsify"

    method: Method = "wanda"
    sparsity: float = 0.5
    pattern: Literal["2:4"] | None = None
    damping: float = 0.01  # of sparsegpt: added to the diagonal of the second moments, times its mean

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sparsity < 1:
            raise OptionError(f"sparsity: {self.sparsity} is not between 0 and 1")
        if self.pattern and self.sparsity != 0.5:
            raise OptionError(f"sparsity: {self.sparsity} is not the half of the weights that '{PAIR}' sets to zero")
        if not self.damping > 0:
            raise OptionError(f"damping: {self.damping} is not more than 0")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        chosen, pattern = _matrices(model), Pattern(self.sparsity, fours=self.pattern == PAIR)
        for linear in chosen.values() if pattern.fours else ():
            if linear.matrix.dims[1] % GROUP:
                raise GraphError(f"'{linear.name}' has {linear.matrix.dims[1]} inputs, which are no fours for '{PAIR}'")
        if self.method == "magnitude":
            for linear in chosen.values():
                linear.replace(without_lowest(linear.matrix, np.float32(1), pattern))
        else:
            self._calibrated(model, chosen, pattern)
        for linear in chosen.values():
            linear.state_zeros(PAIR if pattern.fours else f"{pattern.share:g}")
        remark(model, "sparsity", effect(pattern, context_of(model).target))
        return ir.passes.PassResult(model, modified=True)

    def _calibrated(self, model: ir.Model, chosen: dict[str, Linear], pattern: Pattern) -> None:
        calibration = calibration_of(model, needed_by=f"method '{self.method}'")
        if self.method == "wanda":
            calibration.expect_statistics(model)
        else:
            calibration.expect(sparsegpt_cost(model, chosen.keys(), calibration.shape()))
        if context_of(model).dry:
            return
        from edgewise_plugins.sparse.layers import sparsegpt_by_layers, wanda_by_layers  # which run the model

        if self.method == "wanda":
            wanda_by_layers(model, chosen.keys(), pattern)
        else:
            sparsegpt_by_layers(model, chosen.keys(), pattern, damping=self.damping)


def effect(pattern: Pattern, target: Target | None) -> str:
    """What zeros are worth on a device, in one sentence."""
    if pattern.fours and target and PAIR in target.numerics.sparsity:
        return (
            f"{pattern} of the layers are zero, which the products of this device skip where arithmetic limits them: "
            "speeds that are predicted have half of their operations; bytes and memory are not saved"
        )
    return (
        f"{pattern} of the layers are zero; this device stores and multiplies them like all others: no bytes, no "
        "memory and no time are saved; only an archive of the bundle is smaller"
    )


def _matrices(model: ir.Model) -> dict[str, Linear]:
    """The matrices of the layers. Raises GraphError for one that is quantized."""
    found = {linear.name: linear for linear in layer_matrices(model)}
    for linear in found.values():
        if isinstance(linear.matrix, BlockQuantized):
            raise GraphError(f"'{linear.name}' is quantized already ({linear.matrix.form}): 'sparsify' comes before")
    if not found:
        raise GraphError("the layers have no matrices: no product of them states a role")
    return found
