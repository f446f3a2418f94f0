"""plugins, distill: what a teacher says, computed once and kept in the cache; a run that was killed goes on."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from edgewise.calibration.cache import cache_folder, claimed
from edgewise.writer import Progress

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[tuple[int, ...], str]]  # of a row, and its dtype

DONE, FOLDER = "done.json", "arrays"
ROWS = 16  # sequences at a time, where a teacher works ahead
SHORT = 1 << 16  # of a vocabulary whose tokens fit into two bytes


def kept(
    key: str,
    shapes: Shapes,
    rows: int,
    compute: Callable[[int, int], Arrays],
    *,
    batch: int,
    stage: str,
    progress: Progress | None = None,
) -> Arrays:
    """Arrays of so many rows, read from the disk as they are needed; `compute` gives rows from and to.

    They are named by `key`, a hash of all that they follow from.
    """
    path = cache_folder() / f"{key}.teacher"
    if not path.exists():
        with claimed(key) as work:
            if not path.exists():  # which another process may have made meanwhile
                _fill(work, shapes, rows, compute, batch=batch, report=lambda n: progress and progress(stage, n, rows))
                (work / FOLDER).rename(path)
    return {name: _open(path, name, shapes, rows, "r") for name in shapes}


def size(shapes: Shapes, rows: int) -> int:
    """Bytes on the disk."""
    return rows * sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())


def shapes_of_top(length: int, top: int, vocabulary: int) -> Shapes:
    """Of a sequence of this length, the `top` most likely tokens of each position."""
    return {
        "tokens": ((length, top), "<u2" if vocabulary <= SHORT else "<i4"),
        "logs": ((length, top + 1), "<f2"),
    }


def _fill(
    work: Path,
    shapes: Shapes,
    rows: int,
    compute: Callable[[int, int], Arrays],
    *,
    batch: int,
    report: Callable[[int], object],
) -> None:
    folder, journal = work / FOLDER, work / DONE
    done = json.loads(journal.read_text("ascii")) if journal.exists() else 0
    folder.mkdir(exist_ok=True)
    arrays = {name: _open(folder, name, shapes, rows, "r+" if done else "w+") for name in shapes}
    for start in range(done, rows, batch):
        stop = min(start + batch, rows)
        for name, found in compute(start, stop).items():
            arrays[name][start:stop] = found
        partial = work / f"{DONE}.partial"
        partial.write_text(json.dumps(stop), "ascii")
        os.replace(partial, journal)
        report(stop)


def _open(folder: Path, name: str, shapes: Shapes, rows: int, mode: Literal["r", "r+", "w+"]) -> np.ndarray:
    shape, dtype = shapes[name]
    return np.memmap(folder / name, np.dtype(dtype), mode, shape=(rows, *shape))
