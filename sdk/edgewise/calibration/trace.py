"""sdk, calibration: which experts each token of a text is given to, in the order of the text."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.calibration.routing import by_token, routing
from edgewise.calibration.walk import Walk
from edgewise.writer import Progress

Trace = Mapping[int, np.ndarray]  # by layer, bool [tokens, experts]


def trace(
    model: ir.Model, sequences: np.ndarray, *, context: int | None = None, progress: Progress | None = None
) -> Trace:
    """The routing of sequences, int64 `[n, length]`, one after the other, in every layer that has a mixture."""
    gates = {layer: each.gates for layer, each in routing(model).items()}
    given: dict[int, list[np.ndarray]] = {layer: [] for layer in gates}

    def watch(layer: int) -> None:
        name = gates[layer]
        walk.advance(layer, watch=[name], watcher=lambda values: given[layer].append(by_token(values[name]) != 0))

    with scratch() as folder:
        walk = Walk(model, sequences, folder=folder, context=context, progress=progress)
        for layer in walk.layers:
            watch(layer) if layer in gates else walk.advance(layer)
    return {layer: np.concatenate(chunks) for layer, chunks in given.items()}
