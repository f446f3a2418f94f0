"""sdk, runtime: a graph on the memory that it reads and writes: everything is bound, and written in place."""

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
    """One of a model's graphs on the keys and values of a row, or of several side by side, which outlive it."""

    def __init__(self, graph: Any, rotary: Mapping[str, NDArray[np.float32]]) -> None:
        self.graph = graph
        self.binding = graph.io_binding()
        self._keep = np.ones(1, np.int64)
        optional: dict[str, NDArray[Any]] = {KEEP: self._keep, **rotary}
        for name, array in optional.items():
            self.binding.bind_ortvalue_input(name, in_place(array))

    def bind_cache(self, tensors: Sequence["CacheTensor"], buffers: Sequence[NDArray[Any]]) -> None:
        """The buffers, each `[rows, heads, capacity, dim]`, as the past and the present of each layer."""
        for tensor, buffer in zip(tensors, buffers, strict=True):
            place = ("cpu", 0, tensor.dtype.type, buffer.shape, buffer.ctypes.data)
            self.binding.bind_input(tensor.past, *place)
            self.binding.bind_output(tensor.present, *place)

    def run(
        self,
        ids: NDArray[np.int64],  # [rows, tokens]
        mask: NDArray[np.int64],  # [rows, length]: as many ones as the row holds then, its tokens among them
        logits: NDArray[np.float32],  # [rows, scores, vocabulary], of the last tokens: written
        hidden: NDArray[np.float32] | None = None,  # [rows, tokens, hidden size]: written; always or never given
    ) -> None:
        """Compute tokens that come after what each row holds. All arrays are contiguous."""
        binding, self._keep[0] = self.binding, logits.shape[1]
        binding.bind_input("input_ids", "cpu", 0, np.int64, ids.shape, ids.ctypes.data)
        binding.bind_input("attention_mask", "cpu", 0, np.int64, mask.shape, mask.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        if hidden is not None:
            binding.bind_output(HIDDEN, "cpu", 0, np.float32, hidden.shape, hidden.ctypes.data)
        self.graph.run_with_iobinding(binding)
