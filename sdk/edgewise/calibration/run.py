"""sdk, calibration: a stage that is loaded: a session of it, and the weights that it is given."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgewise.calibration.stages import Stage
from edgewise.runtime.ort import open_graph
from edgewise.tensors import Streamed

GRAPH = "stage.onnx"


class Loaded:
    """Runs one stage, with the weights as they were when it was loaded."""

    def __init__(self, stage: Stage, folder: Path, weights: Mapping[str, np.ndarray]) -> None:
        self.stage, self.weights = stage, weights
        path = folder / GRAPH
        path.write_bytes(stage.graph)
        # Threads that wait in a loop for the next run would take the processor from whoever observes.
        self.session = open_graph(path, entries={"session.intra_op.allow_spinning": "0"})
        path.unlink()

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of the stage by name."""
        needed = {name: feeds[name] for name in self.stage.inputs}
        results = self.session.run(self.stage.outputs, {**needed, **self.weights})
        return dict(zip(self.stage.outputs, results, strict=True))


def read_whole(tensor: Streamed) -> np.ndarray:
    """A weight as an array, made block by block."""
    if not tensor.dims:
        return tensor.read(0, 1).reshape(())
    array = np.empty(tensor.dims, tensor.dtype.numpy())
    for start, stop in tensor.blocks():
        array[start:stop] = tensor.read(start, stop)
    return array


def read_rows(tensor: Streamed, rows: np.ndarray) -> np.ndarray:
    """Some rows of a table, `[len(rows), ...]`; `rows` are sorted."""
    array = np.empty((len(rows), *tensor.dims[1:]), tensor.dtype.numpy())
    for start, stop in tensor.blocks():
        a, b = np.searchsorted(rows, (start, stop))
        if a < b:
            array[a:b] = tensor.read(start, stop)[rows[a:b] - start]
    return array
