"""plugins, quantize: the moments of what enters the matrices of a layer, as GPTQ takes them, on a walk over a text."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from edgewise.calibration.gram import add_gram, mirror
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear
from edgewise_plugins.quantize.drift import add_cross, drift, in_step, stream_of
from edgewise_plugins.quantize.factor import factorize
from edgewise_plugins.quantize.gptq import Moments

TOKENS_PER_FEATURE = 4  # with fewer, GPTQ fits the text more than the model

Group = list[Linear]


def observed(
    walk: Walk, floats: Walk, layer: int, names: Collection[str], *, damping: float
) -> Iterator[tuple[Group, Moments]]:
    """The matrices of a layer that are among `names`, by the input that they share, in order of computation.

    Each input is that of the model as it is when its turn comes; those of experts are collected together.
    """
    groups = [[linear for linear in sharing if linear.name in names] for sharing in walk.inputs(layer).values()]
    experts = [group for group in groups if group and group[0].expert is not None]
    for group in groups:
        if group and group[0].expert is None:
            yield group, _in_step(walk, floats, layer, group, damping=damping)
    if experts:
        yield from _of_experts(walk, layer, experts, damping=damping)


def _in_step(walk: Walk, floats: Walk, layer: int, group: Group, *, damping: float) -> Moments:
    """With how far the model that is quantized so far has drifted from the float one."""
    gram, cross = _zeros(group), None
    for x, difference in in_step(walk, floats, layer, group):
        add_gram(gram, x)
        cross = add_cross(cross, difference, x)
    assert cross is not None
    tokens = np.float32(walk.sequences.size)
    mirror(gram)
    gram /= tokens
    cross /= tokens
    factor = factorize(gram, damping)
    return Moments(gram, factor, drift(cross, factor, to_stream=stream_of(group) is not None))


def _of_experts(walk: Walk, layer: int, groups: list[Group], *, damping: float) -> Iterator[tuple[Group, Moments]]:
    """Of the tokens that each expert is given; where these are few, of its inputs one by one."""
    sums = {group[0].name: _zeros(group) for group in groups}
    tokens = dict.fromkeys(sums, 0)

    def observe(sharing: Sequence[Linear], x: np.ndarray) -> None:
        for linear in sharing:
            if linear.name in sums:
                add_gram(sums[linear.name], x)
                tokens[linear.name] += len(x)

    walk.observe(layer, observe)
    for group in groups:
        gram, count = sums.pop(group[0].name), tokens[group[0].name]
        mirror(gram)
        gram /= np.float32(max(1, count))
        if count < TOKENS_PER_FEATURE * len(gram):
            gram = np.diag(gram.diagonal())
        yield group, Moments(gram, factorize(gram, damping))


def _zeros(group: Group) -> np.ndarray:
    columns = group[0].matrix.dims[1]
    return np.zeros((columns, columns), np.float32)
