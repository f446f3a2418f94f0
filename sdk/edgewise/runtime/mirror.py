"""sdk, runtime: keys and values on a device with memory of its own, and in ordinary memory.

A graph computes on the device; forks, files and windows read and write arrays. Whichever side is needed gets what the
other one has, all of it, if that is newer. A generation without forks leaves the device alone after its prompt.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from edgewise.runtime.element import element
from edgewise.runtime.memory import Memory

Place = tuple[str, int, Any, tuple[int, ...], int]  # device, its number, type, shape and address


class Mirror:
    """Arrays, and as many values on the device: of the same dtypes, so bits of bfloat16 are copied as such."""

    def __init__(self, memory: Memory, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = arrays
        self._number = memory.number
        self._values = [memory.allocated(array.shape, array.dtype) for array in arrays]
        self._device_is_old, self._arrays_are_old = True, False
        self.copied = 0  # bytes, to either side

    def read(self) -> None:
        """The arrays have what is on the device."""
        if self._arrays_are_old:
            for array, value in zip(self._arrays, self._values, strict=True):
                array[...] = value.numpy()
                self.copied += array.nbytes
            self._arrays_are_old = False

    def written(self) -> None:
        """The arrays, which were read before, have something new."""
        self._device_is_old = True

    def compute(self) -> None:
        """The device has what is in the arrays, and will have more."""
        if self._device_is_old:
            for array, value in zip(self._arrays, self._values, strict=True):
                value.update_inplace(array)
                self.copied += array.nbytes
            self._device_is_old = False
        self._arrays_are_old = True

    def places(self, start: int, stop: int) -> list[Place]:
        """Where slots of each array are on the device."""
        found = []
        for array, value in zip(self._arrays, self._values, strict=True):
            shape = (stop - start, *array.shape[1:])
            address = value.data_ptr() + start * array.strides[0]
            found.append((value.device_name(), self._number, element(array.dtype), shape, address))
        return found
