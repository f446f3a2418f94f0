"""plugins, quantize: AutoRound over the layers of a model, each after GPTQ has done it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.hidden import Hidden
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear, linears
from edgewise.quantized import BlockQuantized, Format
from edgewise_plugins.differentiable import Layer
from edgewise_plugins.quantize.autoround import Learned, coded_of, error, learn
from edgewise_plugins.quantize.blocks import Coded, in_blocks, quantize_all
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.quantize.spill import Spill

logger = logging.getLogger(__name__)

Codes = Mapping[str, Coded]  # of the matrices of a layer, by name


@dataclass
class AutoRound:
    """Learns the rounding of matrices, in the formats that `forms` names, towards what the float model says."""

    calibration: Calibration
    forms: Mapping[str, Format]
    spill: Spill
    steps: int

    def learn(self, walk: Walk, reference: Walk, index: int) -> None:
        """Learn the rounding of a layer that GPTQ has done; `reference` has gone through it in the float model."""
        floats = {
            linear.name: linear.matrix.read(0, linear.matrix.dims[0])
            for linear in _of_layer(reference.model, index)
            if linear.name in self.forms
        }
        if not floats:
            return
        done = [linear for linear in _of_layer(walk.model, index) if linear.name in floats]
        layer, hidden = Layer(walk, index), (walk.hidden, reference.hidden)
        start = {linear.name: _coded(linear) for linear in done}
        matrices = {
            name: Learned(floats[name], coded, self.forms[name], device=layer.device) for name, coded in start.items()
        }
        for step in learn(layer, matrices, *hidden, steps=self.steps, seed=index):
            self._report(index * self.steps + step, len(walk.layers) * self.steps)
        candidates = {
            "what was learned": {name: matrix.coded() for name, matrix in matrices.items()},
            "gptq": start,
            "round to nearest": {linear.name: self._nearest(linear, floats[linear.name]) for linear in done},
        }
        best = _best(layer, candidates, *hidden, index=index)
        for linear in done:
            self._replace(linear, best[linear.name])

    def _nearest(self, linear: Linear, weights: np.ndarray) -> Coded:
        form = self.forms[linear.name]
        return quantize_all(nearest, in_blocks(weights, form.block_size), form, linear.matrix, 0)

    def _replace(self, linear: Linear, coded: Coded) -> None:
        rows, columns = linear.matrix.dims
        form = self.forms[linear.name]
        linear.replace(self.spill.write((rows, columns), form, [coded.stored(form)], name=linear.name))
        linear.state_zeros(None)  # they learn as well

    def _report(self, done: int, total: int) -> None:
        if self.calibration.progress:
            self.calibration.progress("autoround", done, total)


def _of_layer(model: ir.Model, index: int) -> Sequence[Linear]:
    return [linear for linear in linears(model) if linear.layer == index]


def _coded(linear: Linear) -> Coded:
    matrix = linear.matrix
    assert isinstance(matrix, BlockQuantized)
    return coded_of(matrix.quantized(0, matrix.dims[0]), matrix.form)


def _best(layer: Layer, candidates: Mapping[str, Codes], entering: Hidden, leaving: Hidden, *, index: int) -> Codes:
    """The candidate with which the layer is closest to the float model on the whole text."""
    errors = {kind: error(layer, codes, entering, leaving) for kind, codes in candidates.items()}
    best = min(errors, key=errors.__getitem__)
    logger.debug("layer %d: %s", index, ", ".join(f"{kind} {found:.4g}" for kind, found in errors.items()))
    if best != "what was learned":
        logger.info("layer %d keeps %s, which is closer on this text than what was learned", index, best)
    return candidates[best]
