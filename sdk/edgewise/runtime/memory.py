"""sdk, runtime: arrays that a session reads where they are: in ordinary memory, or in memory of its provider's own.

What is bound from another memory is copied when it is bound, and what is written later is not seen: OpenVINO's inputs
are so, even on a processor.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.runtime.library import onnxruntime
from edgewise.runtime.ort import in_place

ORDINARY = "Cpu"
DEVICES = {"Cuda": "cuda", "DML": "dml"}  # memory of providers that are built in, by the names that values have for it


class Memory:
    """Where a graph has an input. A value is an `OrtValue` on an array: for as long as it is bound, keep both.

    On a device whose memory the processor cannot read (`apart`), a value is on an array of ordinary memory: it is
    copied when it is bound, so that has to be done again before each run.
    """

    def __init__(self, graph: Any, name: str) -> None:
        names = [value.name for value in graph.get_inputs()]
        info = graph.get_input_memory_infos()[names.index(name)]
        shared = onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE
        self._info = info
        self.number = info.device_id
        self.ordinary = info.name == ORDINARY  # any array of numpy is read where it is
        self.apart = not self.ordinary and info.device_mem_type != shared

    def hold(self, array: NDArray[Any]) -> tuple[NDArray[Any], Any]:
        """The array and its value; where it has to be elsewhere, a copy that takes its place."""
        if self.ordinary or self.apart:
            return array, in_place(array)
        value = self.allocated(array.shape, array.dtype)
        held: NDArray[Any] = value.numpy()
        held[...] = array
        return held, value

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], Any]:
        """An array of zeros and its value."""
        if self.ordinary or self.apart:
            return self.hold(np.zeros(shape, dtype))
        value = self.allocated(shape, dtype)
        held: NDArray[Any] = value.numpy()
        held[...] = 0
        return held, value

    def allocated(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A value in that memory, of anything."""
        make, size = onnxruntime.OrtValue.ortvalue_from_shape_and_type, list(shape)
        if self._info.name in DEVICES:
            return make(size, dtype.type, DEVICES[self._info.name], self.number)
        return make(size, dtype.type, memory_info=self._info)
