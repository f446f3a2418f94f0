"""sdk, confined: system calls that the standard library has no function for."""

import ctypes
import os
from typing import Any


def call(number: int, *arguments: Any) -> int:
    """What it gives. Raises OSError."""
    result = int(_libc().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def control(option: int, *arguments: Any) -> None:
    """prctl(2). Raises OSError."""
    values = [*arguments, *[0] * (4 - len(arguments))]
    if _libc().prctl(option, *(ctypes.c_ulong(value) if isinstance(value, int) else value for value in values)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
