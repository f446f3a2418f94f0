"""plugins, prune: what enters a matrix on a text, and what it should give: moments, on a walk over the text."""

from collections.abc import Iterator, Sequence

import numpy as np

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.gram import add_gram, mirror, product
from edgewise.calibration.walk import Walk
from edgewise.errors import OptionError
from edgewise.graph import Linear
from edgewise_plugins.prune.eliminate import Moments
from edgewise_plugins.quantize.drift import stream_after


def refuse_too_few_tokens(calibration: Calibration, inputs: int, *, needed_by: str) -> None:
    """Raises OptionError where least squares would have more unknowns than equations."""
    count, length = calibration.shape()
    if count * length < inputs:
        raise OptionError(
            f"{needed_by} fits matrices of {inputs:,} inputs anew, for which {count * length:,} tokens are too few: "
            f"a text of at least {inputs:,}, better of ten times as many (--calibration-tokens)"
        )


def moments(walk: Walk, floats: Walk, layer: int, linear: Linear, channels: np.ndarray | slice = np.s_[:]) -> Moments:
    """Of a matrix of the model that is pruned up to here.

    It should give what makes the residual stream that of the float model again, of which the model has these
    `channels`; where it does not add to the stream by itself, what it would give for the float model's inputs.
    """
    weights = linear.matrix.numpy().astype(np.float32)  # [outputs, inputs]
    rows, columns = weights.shape
    gram, target = np.zeros((columns, columns), np.float32), np.zeros((rows, columns), np.float32)
    sum_x, sum_y = np.zeros(columns), np.zeros(rows)
    for x, y in _wanted(walk, floats, layer, linear, channels, weights):
        add_gram(gram, x)
        target += product(np.ascontiguousarray(y), np.ascontiguousarray(x))
        sum_x += x.sum(axis=0, dtype=np.float64)
        sum_y += y.sum(axis=0, dtype=np.float64)
    mirror(gram)
    tokens = walk.sequences.size
    return Moments(weights, gram / tokens, target / tokens, sum_x / tokens, sum_y / tokens)


def values_by_token(walk: Walk, layer: int, names: Sequence[str]) -> Iterator[tuple[np.ndarray, ...]]:
    """What a layer computes under these names, batch by batch: each `[tokens, features]`."""
    for found in walk.values(layer, list(dict.fromkeys(names))):
        yield tuple(found[name].reshape(-1, found[name].shape[-1]) for name in names)


def _wanted(
    walk: Walk, floats: Walk, layer: int, linear: Linear, channels: np.ndarray | slice, weights: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What enters a matrix, and what it should give."""
    entering, after = str(linear.node.inputs[0].name), stream_after(linear)  # type: ignore[union-attr]
    if after is None:
        ours = values_by_token(walk, layer, [entering])
        theirs = values_by_token(floats, layer, [entering])
        for (x,), (other,) in zip(ours, theirs, strict=True):
            yield x, other @ weights.T
        return
    watch = str(after.name)
    if watch == f"hidden.{layer + 1}" and floats.position == layer:
        floats.advance(layer)  # what leaves the layer is kept then
    ours = values_by_token(walk, layer, [entering, watch])
    theirs = values_by_token(floats, floats.position, [watch])
    for (x, stream), (wanted,) in zip(ours, theirs, strict=True):
        yield x, x @ weights.T + wanted[:, channels] - stream
