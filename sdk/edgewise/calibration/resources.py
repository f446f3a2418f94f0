"""sdk, calibration: room on the disk, and how fast this machine computes."""

import shutil
import time
from pathlib import Path

import numpy as np

from edgewise.calibration.gram import product

_SIZE = 1024  # of a product that takes hundredths of a second


def free_disk(folder: Path) -> int:
    """Bytes that this user may still write where the folder is."""
    return shutil.disk_usage(folder).free


def measured_flops() -> float:
    """Floating-point operations a second in a matrix product, at this moment."""
    a = np.ones((_SIZE, _SIZE), np.float32)
    product(a, a)  # loads what it takes
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        product(a, a)
        seconds.append(time.perf_counter() - started)
    return float(2 * _SIZE**3 / min(seconds))
