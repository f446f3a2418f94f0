"""sdk, runtime: a graph that decodes with all of its inputs and outputs at fixed places, as a GPU captures it.

With the provider option `enable_cuda_graph` ONNX Runtime records the kernels of a run, and replays them without their
launches. What changes from run to run may only be the content of what is bound: so the attention mask covers the whole
capacity, and its zeros say what is not held yet. Runs of other shapes say that they are not to be captured.
"""

import weakref
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.bundle.manifest import Provider
from edgewise.runtime.element import DTYPES, narrowed
from edgewise.runtime.library import onnxruntime
from edgewise.runtime.ort import in_place
from edgewise.runtime.signature import KEEP, POSITIONS

if TYPE_CHECKING:
    from edgewise.runtime.mirror import Place
    from edgewise.runtime.model import Model

OPTION = "enable_cuda_graph"
NUMBER = "gpu_graph_id"
NEVER = -1

_numbers = count(1)  # of captured graphs, each with places of its own


def is_captured(providers: Sequence[Provider]) -> bool:
    """Whether a bundle's provider is to capture what can be."""
    return any(provider.options.get(OPTION) == "1" for provider in providers)


def run_options(number: int = NEVER) -> Any:
    """Options of a run that is captured under a number, or never."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(NUMBER, str(number))
    return options


class Captured:
    """One of a model's graphs on the keys and values of some rows at their `places`, for a token of each at a time."""

    def __init__(self, model: "Model", graph: Any, places: Sequence["Place"]) -> None:
        device, index, _, (rows, _, capacity, _), _ = places[0]
        number = next(_numbers)
        self._graph, self._options = graph, run_options(number)
        if device != "cpu":
            weakref.finalize(self, graph.release_captured_graph, number)
        self._positions = np.arange(capacity)
        self._values = {
            name: _make(shape, np.int64, device, index)
            for name, shape in {
                "input_ids": (rows, 1),
                "attention_mask": (rows, capacity),
                POSITIONS: (rows, 1),
            }.items()
            if name in model.signature.inputs
        }
        self._logits = _make((rows, 1, model.facts.vocab_size), np.float32, device, index)
        self._binding = graph.io_binding()
        self._bind(model, places)

    def run(
        self,
        lengths: Sequence[int],  # that each row holds
        ids: NDArray[np.int64],  # [rows, 1], that come after it
        logits: NDArray[np.float32],  # [rows, 1, vocabulary]: written
        hidden: NDArray[np.float32] | None = None,  # never given
    ) -> None:
        """Compute a token of each row."""
        assert hidden is None
        held = np.array(lengths)[:, None]
        new = {"input_ids": ids, "attention_mask": (self._positions <= held).astype(np.int64), POSITIONS: held}
        for name, value in self._values.items():
            value.update_inplace(np.ascontiguousarray(new[name]))
        self._graph.run_with_iobinding(self._binding, self._options)
        logits[...] = self._logits.numpy()

    def _bind(self, model: "Model", places: Sequence["Place"]) -> None:
        for name, value in self._values.items():
            self._binding.bind_ortvalue_input(name, value)
        types = {value.name: value.type for value in self._graph.get_overridable_initializers()}
        tables = {name: narrowed(table, DTYPES[types[name]]) for name, table in model.rotary.items()}
        self._constants = {KEEP: np.ones(1, np.int64), **tables}
        for name, array in self._constants.items():
            self._binding.bind_ortvalue_input(name, in_place(array))
        for tensor, place in zip(model.cache, places, strict=True):
            self._binding.bind_input(tensor.past, *place)
            self._binding.bind_output(tensor.present, *place)
        self._binding.bind_ortvalue_output("logits", self._logits)


def _make(shape: Sequence[int], dtype: type, device: str, index: int) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, index)
