"""plugins, moe: a dense MLP as a shared expert and routed ones, of which a token uses a few: no training (CMoE).

Layer after layer, on a text: neurons are dealt out (see `split`), a router is fitted to what each expert contributes
(see `contributions`), and `down` is fitted anew to what is left of its inputs, as where neurons are pruned. Later
layers see what the earlier ones became.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.calibration.walk import Walk
from edgewise.errors import GraphError, OptionError
from edgewise.graph import Roles
from edgewise.passes import Pass, calibration_of, context_of
from edgewise_plugins.moe.mlp import Mlp
from edgewise_plugins.prune.eliminate import check_damping
from edgewise_plugins.prune.parts import floats


@dataclass(frozen=True)
class DenseToMoe(Pass):
    """Makes mixtures of experts of dense MLPs: a token computes, and reads, a share of them; the bundle is as large.

    The neurons of each MLP are cut into `experts` slices: `shared` of them for every token, and of the others `active`
    for each token, as a router chooses them. (shared + active) / experts is the share of neurons that a token uses.
    Needs a calibration text. Comes before `quantize`.
    """

    name: ClassVar[str] = "dense-to-moe"

    experts: int = 8
    shared: int = 2
    active: int = 2
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping)
        if self.shared < 0:
            raise OptionError(f"shared: {self.shared} is not 0 or more")
        if self.experts - self.shared < 2:
            raise OptionError(f"experts: {self.experts} of which {self.shared} are shared leave nothing to choose from")
        if not 1 <= self.active <= self.experts - self.shared:
            raise OptionError(
                f"active: {self.active} is not from 1 to {self.experts - self.shared}, those that are routed"
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'dense-to-moe'")
        by_node, roles = floats(model, needed_by="dense-to-moe"), Roles.of(model)
        layers = {number: mlp for number in roles.layers() if (mlp := Mlp.of(roles, by_node, number))}
        if not layers:
            raise GraphError("no layer has a dense MLP: all are mixtures of experts already")
        for mlp in layers.values():
            mlp.refuse(self.experts)
        if context_of(model).dry:
            for mlp in layers.values():
                router = np.zeros((self.experts - self.shared, mlp.gate.matrix.dims[1]), np.float32)
                mlp.put(model, mlp.any_split(self.experts, self.shared), router, self.active, None)
            return ir.passes.PassResult(model, modified=True)
        before = model.clone()
        with calibration.walk(model) as walk, calibration.walk(before) as along:
            along.progress = None
            for number in walk.layers:
                if number in layers:
                    self._convert(layers[number], walk, along)
                if along.position == number:
                    along.advance(number)
                walk.advance(number)
        return ir.passes.PassResult(model, modified=True)

    def _convert(self, mlp: Mlp, walk: Walk, along: Walk) -> None:
        dealt = mlp.split(walk, self.experts, self.shared, self.active)
        router = mlp.router(walk, dealt)
        found = None
        if self.active < len(dealt.routed):  # otherwise nothing is missing
            found = mlp.refitted(walk, along, dealt, router, self.active, damping=self.damping)
        mlp.put(walk.model, dealt, router, self.active, found)
