"""tests: a device with memory of its own: here, memory that no session reads or writes by itself.

What is not copied to it, or back, is missing there: so it stands for a GPU, but for the way to it.
"""

from typing import Any

import numpy as np
import onnxruntime

from edgewise.runtime.memory import Memory


class Apart(Memory):
    """Ordinary memory, but no array's that a session has."""

    apart, ordinary = True, False

    def __init__(self) -> None:
        self.number = 0

    def allocated(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type)
