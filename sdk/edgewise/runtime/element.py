"""sdk, runtime: the element types of a graph, and the arrays that hold them; numpy has no bfloat16: its bits do."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = np.dtype(np.uint16)  # of bfloat16: nothing else that a graph takes or gives is of this type
BFLOAT16 = 16  # as ONNX numbers it
NAN = 0x7FC0

DTYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bfloat16)": BITS,
    "tensor(int8)": np.dtype(np.int8),
}


def element(dtype: np.dtype[Any]) -> Any:
    """What ONNX Runtime is told that an array of a dtype holds."""
    return BFLOAT16 if dtype == BITS else dtype.type


def widened(array: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers of a graph as float32, in a new array."""
    if array.dtype == BITS:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def narrowed(array: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The same numbers as a graph takes them; bfloat16 is rounded to the nearest, and of two to the even one."""
    if dtype != BITS:
        return array.astype(dtype, copy=False)
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(array), NAN, rounded).astype(BITS)
