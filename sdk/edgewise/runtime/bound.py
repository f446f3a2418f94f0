"""sdk, runtime: a graph with the memory of one session: every input and output is bound, and written in place."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.runtime.ort import in_place

if TYPE_CHECKING:
    from edgewise.runtime.model import CacheTensor

KEEP = "logits_to_keep"
HIDDEN = "hidden_states"


class Bound:
    """One of a model's graphs on the buffers of a session, which outlive it. What stays the same is bound once."""

    def __init__(self, graph: Any, ones: NDArray[np.int64], rotary: Mapping[str, NDArray[np.float32]]) -> None:
        self.graph = graph
        self.binding = graph.io_binding()
        self._ones = ones  # the attention mask of every length
        self._keep = np.ones(1, np.int64)
        self._shape: tuple[int, ...] = ()
        optional: dict[str, NDArray[Any]] = {KEEP: self._keep, **rotary}
        for name, array in optional.items():
            self.binding.bind_ortvalue_input(name, in_place(array))

    def bind_cache(self, tensors: Sequence["CacheTensor"], buffers: Sequence[NDArray[Any]]) -> None:
        """The buffers as the past and the present of each layer."""
        for tensor, buffer in zip(tensors, buffers, strict=True):
            place = ("cpu", 0, tensor.dtype.type, buffer.shape, buffer.ctypes.data)
            self.binding.bind_input(tensor.past, *place)
            self.binding.bind_output(tensor.present, *place)

    def forget_shape(self) -> None:
        """To be called when tokens or scores are in other memory than before."""
        self._shape = ()

    def bind_hidden(self, hidden: NDArray[np.float32]) -> None:
        """Where the hidden states of the next run go, `[count, hidden size]`."""
        place = ("cpu", 0, np.float32, (1, *hidden.shape), hidden.ctypes.data)
        self.binding.bind_output(HIDDEN, *place)

    def run(
        self, ids: NDArray[np.int64], logits: NDArray[np.float32], start: int, count: int, row: int, scores: int
    ) -> None:
        """Compute `count` tokens, `ids`, after the first `start`; scores of the last ones go to `logits` from `row`."""
        if self._shape != (count, row, scores):
            self._bind_shape(ids, logits[row : row + scores], count)
            self._shape = (count, row, scores)
        self.binding.bind_input("attention_mask", "cpu", 0, np.int64, (1, start + count), self._ones.ctypes.data)
        self.graph.run_with_iobinding(self.binding)

    def _bind_shape(self, ids: NDArray[np.int64], logits: NDArray[np.float32], count: int) -> None:
        self._keep[0] = len(logits)
        self.binding.bind_input("input_ids", "cpu", 0, np.int64, (1, count), ids.ctypes.data)
        self.binding.bind_output("logits", "cpu", 0, np.float32, (1, *logits.shape), logits.ctypes.data)
