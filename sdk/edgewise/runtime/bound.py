"""sdk, runtime: a graph that writes its cache in place: all that it reads and writes is bound."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.runtime.captured import run_options
from edgewise.runtime.element import DTYPES, element, narrowed
from edgewise.runtime.mirror import Place
from edgewise.runtime.ort import in_place
from edgewise.runtime.signature import HIDDEN, KEEP, POSITIONS

if TYPE_CHECKING:
    from edgewise.runtime.model import Model


class Bound:
    """One of a model's graphs on the keys and values of a row, or of several side by side, which outlive it.

    Buffers `[rows, heads, capacity, dim]` are the past and the present of each layer; `places` are where they are.
    """

    def __init__(self, model: "Model", graph: Any, places: Sequence[Place]) -> None:
        self.graph = graph
        self.binding = graph.io_binding()
        self._model = model
        self._options = run_options() if model.captures else None
        self._keep = np.ones(1, np.int64)
        self._kept = in_place(self._keep)
        self._has_positions = POSITIONS in {value.name for value in graph.get_inputs()}
        types = {value.name: value.type for value in graph.get_overridable_initializers()}
        tables = {name: narrowed(table, DTYPES[types[name]]) for name, table in model.rotary.items()}
        constants = {name: in_place(array) for name, array in (tables | model.crossed).items()}
        for name, value in {KEEP: self._kept, **constants}.items():
            self.binding.bind_ortvalue_input(name, value)
        for tensor, at in zip(model.cache, places, strict=True):
            self.binding.bind_input(tensor.past, *at)
            self.binding.bind_output(tensor.present, *at)

    def run(
        self,
        lengths: Sequence[int],  # that each row holds
        ids: NDArray[np.int64],  # [rows, tokens], that come after it
        logits: NDArray[np.float32],  # [rows, scores, vocabulary], of the last tokens: written
        hidden: NDArray[np.float32] | None = None,  # [rows, tokens, hidden size]: written; always or never given
    ) -> None:
        """Compute tokens. All arrays are contiguous; only one row at a time can be given more than a token."""
        binding, self._keep[0] = self.binding, logits.shape[1]
        mask = self._mask(lengths, ids.shape[1])
        if self._model.memory.apart:
            binding.bind_ortvalue_input(KEEP, self._kept)  # which copies it there
        binding.bind_input("input_ids", "cpu", 0, np.int64, ids.shape, ids.ctypes.data)
        binding.bind_input("attention_mask", "cpu", 0, np.int64, mask.shape, mask.ctypes.data)
        if self._has_positions:
            positions = np.array(lengths)[:, None] + np.arange(ids.shape[1])
            binding.bind_input(POSITIONS, "cpu", 0, np.int64, positions.shape, positions.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        if hidden is not None:
            binding.bind_output(HIDDEN, "cpu", 0, np.float32, hidden.shape, hidden.ctypes.data)
        self.graph.run_with_iobinding(binding, self._options)

    def _mask(self, lengths: Sequence[int], width: int) -> NDArray[np.int64]:
        """Ones for what each row will hold, on the left."""
        longest = max(lengths) + width
        if len(lengths) == 1:
            return self._model.ones[:, :longest]
        ends = np.array(lengths)[:, None] + width
        return (self._model.positions[:longest] < ends).astype(np.int64)


def place(buffer: NDArray[Any]) -> Place:
    """Where an array is."""
    return "cpu", 0, element(buffer.dtype), buffer.shape, buffer.ctypes.data
