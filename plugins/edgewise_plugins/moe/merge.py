"""plugins, moe: experts that become one: weights averaged by usage, units aligned by what they give on a text."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.calibration.routing import by_token
from edgewise.calibration.walk import Walk
from edgewise.errors import GraphError
from edgewise.facts import Experts
from edgewise.graph import Linear, Roles
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.tensors import constant
from edgewise_plugins.moe.align import Correlations, Expert, average, match
from edgewise_plugins.moe.correct import correct_routers
from edgewise_plugins.moe.groups import Groups, group, shares, squares
from edgewise_plugins.moe.mixtures import experts_of, mixtures, products_of, refuse_count
from edgewise_plugins.moe.remove import remove_experts
from edgewise_plugins.prune.parts import floats

logger = logging.getLogger(__name__)

PARTS = ("expert.gate", "expert.up", "expert.down")

Members = Mapping[str, Linear]  # the matrices of one expert, by role


@dataclass(frozen=True)
class MergeExperts(Pass):
    """Merges experts that do alike into one: a smaller bundle; tokens still go to as many experts as before.

    `keep` experts of each layer are left. Those become one whose outputs on the calibration text differ least, by how
    much they are used: the mean of their weights, after each hidden unit has found its like. With `correct`
    gates make up for what is lost, as far as they can: the router is fitted anew. Comes before `quantize`.
    """

    name: ClassVar[str] = "merge-experts"

    keep: int
    correct: bool = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration, found = calibration_of(model, needed_by="pass 'merge-experts'"), mixtures(model)
        floats(model, needed_by="merge-experts")
        _refuse_biases(model, found)
        refuse_count(found, self.keep)
        if context_of(model).dry:
            groups = {number: [[index] for index in range(self.keep)] for number in found}
            leave_first(model, groups)
            return ir.passes.PassResult(model, modified=True)
        before, groups = model.clone(), {}
        with calibration.walk(before) as walk:
            for number in walk.layers:
                if number in found:
                    groups[number] = _merge(model, walk, number, self.keep)
                walk.advance(number)
        leave_first(model, groups)
        if self.correct:
            correct_routers(model, before, calibration)
        return ir.passes.PassResult(model, modified=True)


def _refuse_biases(model: ir.Model, found: Mapping[int, Experts]) -> None:
    roles = Roles.of(model)
    for number in found:
        if any(roles.maybe(f"{part}.bias", number) for part in PARTS):
            raise GraphError(f"the experts of layer {number} have biases, which 'merge-experts' does not know to align")


def leave_first(model: ir.Model, groups: Mapping[int, Groups]) -> None:
    """Remove all experts but the first of each group, whose order is that of the groups."""
    for number, some in groups.items():
        remove_experts(model, number, [members[0] for members in some])


def _merge(model: ir.Model, walk: Walk, number: int, keep: int) -> Groups:
    """Give the first expert of each group of a layer the mean of all of them; the groups."""
    routing, experts = walk.routing[number], experts_of(model, number)
    total, usage = np.zeros((len(experts), len(experts))), np.zeros(len(experts))
    for values in walk.values(number, routing.names):
        gates = by_token(values[routing.gates])
        usage += gates.sum(axis=0, dtype=np.float64)
        total += squares(gates, [by_token(values[name]) for name in routing.outputs])
    groups = group(total, usage, keep)
    found = _correlations(walk, number, [(some[0], other) for some in groups for other in some[1:]])
    for first, *others in groups:
        if others:
            aligned = [_read(experts[first]), *(_aligned(experts[other], found[first, other]) for other in others)]
            _write(experts[first], average(aligned, shares(usage, [first, *others])))
            logger.info("merge-experts: layer %d: %s become one", number, ", ".join(map(str, [first, *others])))
    return groups


def _correlations(walk: Walk, number: int, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], np.ndarray]:
    """Between the units of pairs of experts, over the tokens that are given to one of them."""
    gates, names = walk.routing[number].gates, products_of(walk.model, number)
    if not pairs:
        return {}
    found: dict[tuple[int, int], Correlations] = {}
    for values in walk.values(number, [gates, *dict.fromkeys(names[index] for pair in pairs for index in pair)]):
        given = by_token(values[gates])
        for pair in pairs:
            own = given[:, pair].any(axis=1)
            ours, theirs = (by_token(values[names[index]])[own] for index in pair)
            found.setdefault(pair, Correlations(ours.shape[1])).add(ours, theirs)
    return {pair: correlations.values() for pair, correlations in found.items()}


def _aligned(expert: Members, correlations: np.ndarray) -> Expert:
    return _read(expert).reordered(*match(correlations))


def _read(expert: Members) -> Expert:
    return Expert(*(expert[part].matrix.numpy().astype(np.float32) for part in PARTS))


def _write(expert: Members, weights: Expert) -> None:
    for part, array in zip(PARTS, (weights.gate, weights.up, weights.down), strict=True):
        expert[part].replace(constant(array))
