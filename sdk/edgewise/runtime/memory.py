"""sdk, runtime: arrays that a session reads where they are: in ordinary memory, or in memory of its provider's own.

What is bound from another memory is copied when it is bound, and what is written later is not seen: OpenVINO's inputs
are so, even on a processor.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.runtime.library import onnxruntime

ORDINARY = "Cpu"


class Memory:
    """Where a graph's inputs are. A value is an `OrtValue` on an array: for as long as it is bound, keep both."""

    def __init__(self, graph: Any) -> None:
        info = graph.get_input_memory_infos()[0]
        self._own = None if info.name == ORDINARY else info

    @property
    def ordinary(self) -> bool:
        """Whether any array of numpy is read where it is."""
        return self._own is None

    def hold(self, array: NDArray[Any]) -> tuple[NDArray[Any], Any]:
        """The array and its value; where it has to be elsewhere, a copy that takes its place."""
        if self._own is None:
            return array, onnxruntime.OrtValue.ortvalue_from_numpy(array)
        value = self._allocated(array.shape, array.dtype)
        held: NDArray[Any] = value.numpy()
        held[...] = array
        return held, value

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], Any]:
        """An array of zeros and its value."""
        if self._own is None:
            return self.hold(np.zeros(shape, dtype))
        value = self._allocated(shape, dtype)
        held: NDArray[Any] = value.numpy()
        held[...] = 0
        return held, value

    def _allocated(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, memory_info=self._own)
