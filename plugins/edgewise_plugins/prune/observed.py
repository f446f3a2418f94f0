"""plugins, prune: what enters a matrix on a text, and what it should give: moments, on a walk over the text."""

import numpy as np

from edgewise.calibration.gram import add_gram, mirror, product
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear
from edgewise_plugins.prune.eliminate import Moments
from edgewise_plugins.quantize.drift import in_step, stream_after


def moments(walk: Walk, floats: Walk, layer: int, linear: Linear) -> Moments:
    """Of a matrix of the model that is pruned up to here.

    It should give what makes the residual stream that of the float model again; where it does not add to the stream
    by itself, what it gives now.
    """
    weights = linear.matrix.numpy().astype(np.float32)  # [outputs, inputs]
    rows, columns = weights.shape
    gram, target = np.zeros((columns, columns), np.float32), np.zeros((rows, columns), np.float32)
    sum_x, sum_y = np.zeros(columns), np.zeros(rows)
    to_stream = stream_after(linear) is not None
    for x, difference in in_step(walk, floats, layer, [linear]):
        y = x @ weights.T
        if to_stream:
            y += difference
        add_gram(gram, x)
        target += product(np.ascontiguousarray(y), np.ascontiguousarray(x))
        sum_x += x.sum(axis=0, dtype=np.float64)
        sum_y += y.sum(axis=0, dtype=np.float64)
    mirror(gram)
    tokens = walk.sequences.size
    return Moments(weights, gram / tokens, target / tokens, sum_x / tokens, sum_y / tokens)
