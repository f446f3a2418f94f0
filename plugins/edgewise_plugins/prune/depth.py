"""plugins, prune: fewer layers: those without which the model's scores change least.

A layer that is left out passes on what enters it. What that costs is measured: the mean KL divergence of the model's
scores on a text, of all layers that are gone together, again after each choice (greedy, as SLEB, arXiv 2402.09025).
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.errors import OptionError
from edgewise.graph import LAYER, Roles, get_facts, layer, set_facts
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.quality.sensitivity import Change, sensitivity
from edgewise.tensors import constant, streamed
from edgewise_plugins.prune.parts import drop_unused

logger = logging.getLogger(__name__)

LAST = {
    "attention": ("attention.o", "attention.o.bias"),
    "mlp": ("mlp.down", "mlp.down.bias", "expert.down", "expert.down.bias", "shared.down"),
}
TOKENS = 4096  # of the calibration text that layers are compared on


@dataclass(frozen=True)
class PruneLayers(Pass):
    """Removes whole layers: faster than anything else of the same size, and harder on what the model knows.

    `keep` layers stay. They are chosen one after the other by the mean KL divergence that the model has without them;
    `contiguous` removes the layers that follow each other and cost least together. Needs a calibration text. Comes
    before `quantize`.
    """

    name: ClassVar[str] = "prune-layers"

    keep: int
    contiguous: bool = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'prune-layers'")
        count = get_facts(model).layers
        if not 1 <= self.keep <= count:
            raise OptionError(f"keep: {self.keep} is not from 1 to {count}, the layers of the model")
        if context_of(model).dry or self.keep == count:
            remove_layers(model, range(self.keep, count))
            return ir.passes.PassResult(model, modified=self.keep < count)
        choose = _together if self.contiguous else _one_by_one
        gone, cost = choose(model, count - self.keep, calibration.part(TOKENS))
        logger.info("prune-layers: without %s the mean KL divergence is %.3g", ", ".join(map(str, gone)), cost)
        remove_layers(model, gone)
        return ir.passes.PassResult(model, modified=True)


def remove_layers(model: ir.Model, gone: Iterable[int]) -> None:
    """Take layers out; those that are left are numbered anew, from 0, and so are their caches and hidden states."""
    removed, facts = set(gone), get_facts(model)
    for number in sorted(removed):
        _bypass(model, number)
    left = [number for number in range(facts.layers) if number not in removed]
    _rename(model, left, facts.layers)
    experts = tuple(facts.experts[number] for number in left) if facts.experts else ()
    set_facts(model, replace(facts, attention=tuple(facts.attention[n] for n in left), experts=experts))


def without(model: ir.Model, number: int) -> Change:
    """Weights by which a layer adds nothing to the residual stream: what leaving it out computes, in the same graph."""
    change = {}
    for value in _last_weights(Roles.of(model), number):
        tensor = streamed(value.const_value)
        change[str(value.name)] = constant(np.zeros(tensor.dims, tensor.dtype.numpy()), name=tensor.name)
    return change


def merged(changes: Sequence[Change]) -> Change:
    """Several changes as one."""
    return {name: tensor for change in changes for name, tensor in change.items()}


def _last_weights(roles: Roles, number: int) -> Iterator[ir.Value]:
    """Of what a layer adds to the residual stream, the weights that come last: a norm's, or matrices and biases."""
    for block, last in LAST.items():
        names = [f"{block}.post_norm"] if roles.maybe(f"{block}.post_norm", number) else last
        for node in (node for name in names for node in roles.all(name, number)):
            yield from (value for value in node.inputs if value is not None and value.is_initializer())


def least_missed(model: ir.Model, sequences: np.ndarray) -> Iterator[tuple[int, float]]:
    """Layers in the order in which they go, each with what the model has lost by then."""
    gone: list[int] = []
    single = {number: without(model, number) for number in range(get_facts(model).layers)}
    while len(gone) < len(single):
        left = [number for number in single if number not in gone]
        changes = {str(number): merged([*(single[g] for g in gone), single[number]]) for number in left}
        costs = sensitivity(model, changes, sequences)
        best = min(costs, key=lambda name: costs[name])
        gone.append(int(best))
        yield int(best), costs[best]


def _one_by_one(model: ir.Model, count: int, sequences: np.ndarray) -> tuple[list[int], float]:
    gone, costs = zip(*islice(least_missed(model, sequences), count), strict=True)
    return list(gone), costs[-1]


def _together(model: ir.Model, count: int, sequences: np.ndarray) -> tuple[list[int], float]:
    layers = get_facts(model).layers
    runs = {str(start): range(start, start + count) for start in range(layers - count + 1)}
    changes = {name: merged([without(model, number) for number in run]) for name, run in runs.items()}
    costs = sensitivity(model, changes, sequences)
    best = min(costs, key=lambda name: costs[name])
    return list(runs[best]), costs[best]


def _bypass(model: ir.Model, number: int) -> None:
    """Remove the nodes of a layer, and its cache; what read its residual stream reads the one before."""
    nodes = [node for node in model.graph if layer(node) == number]
    names = {value.name: value for node in nodes for value in node.outputs}
    leaving = names[f"hidden.{number + 1}"]
    entering = next(
        value for node in nodes for value in node.inputs if value is not None and value.name == f"hidden.{number}"
    )
    kept_name = leaving.name
    ir.convenience.replace_all_uses_with(leaving, entering)
    prefixes = tuple(f"{kind}.{number}." for kind in ("present", "past_key_values"))
    for values in (model.graph.outputs, model.graph.inputs):
        for value in [value for value in values if str(value.name).startswith(prefixes)]:
            values.remove(value)
    leaving.name = f"{kept_name}.gone"
    entering.name = kept_name
    for node in reversed(nodes):
        model.graph.remove(node, safe=True)
    drop_unused(model.graph)


def _rename(model: ir.Model, left: Sequence[int], before: int) -> None:
    """Number the layers that are left from 0 on."""
    numbers = {old: new for new, old in enumerate(left)}
    for node in model.graph:
        if (old := layer(node)) is not None:
            node.metadata_props[LAYER] = str(numbers[old])
            for value in node.outputs:
                value.name = _numbered(str(value.name), numbers, before, len(left))
        elif any(str(value.name).startswith("hidden.") for value in node.outputs):
            for value in node.outputs:
                value.name = _numbered(str(value.name), numbers, before, len(left))
    for value in model.graph.inputs:
        value.name = _numbered(str(value.name), numbers, before, len(left))


def _numbered(name: str, numbers: dict[int, int], before: int, after: int) -> str:
    kind, _, rest = name.partition(".")
    number, dot, part = rest.partition(".")
    if kind in ("present", "past_key_values") and number.isdecimal() and int(number) in numbers:
        return f"{kind}.{numbers[int(number)]}{dot}{part}"
    if kind == "hidden" and number.isdecimal() and not dot:
        old = int(number)
        return f"hidden.{after if old == before else numbers[old]}"
    return name
