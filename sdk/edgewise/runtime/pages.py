"""sdk, runtime: memory in huge pages: a processor that reads weights in order fetches them ahead within a page only.

Decoding reads each weight once a token, so it gains most of pages of 2 MiB instead of 4 KiB (benchmarks/settings.py).
Linux can exchange the pages of memory that is in use (MADV_COLLAPSE, since 6.1; man madvise); elsewhere, and where the
administrator has turned them off, nothing is done.
"""

import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SIZE = 2 << 20  # bytes of a huge page
STEP = 16 << 20  # bytes that are exchanged in one call
LIMIT_S = 0.5  # in all: it copies, and where memory is in pieces the system looks for whole ones first

_MAPS = Path("/proc/self/maps")
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MADV_COLLAPSE = 25

Range = tuple[int, int]  # addresses: the first, and the one behind the last


@contextmanager
def huge_pages() -> Iterator[None]:
    """Memory that this process takes meanwhile is in huge pages afterwards, as far as the system has them."""
    before = _anonymous()
    yield
    if _enabled():
        _collapse([inner for taken in without(_anonymous(), before) if (inner := _whole(taken))])


def without(ranges: Sequence[Range], others: Sequence[Range]) -> Iterator[Range]:
    """What of these ranges is in none of the others; both are in order.

    >>> list(without([(0, 10), (20, 30)], [(2, 4), (8, 25)]))
    [(0, 2), (4, 8), (25, 30)]
    """
    for start, stop in ranges:
        for first, end in others:
            if end <= start or first >= stop:
                continue
            if first > start:
                yield start, first
            start = end
        if start < stop:
            yield start, stop


def _anonymous() -> list[Range]:
    """The memory of this process that can be written, and is no file's."""
    try:
        lines = [line.split() for line in _MAPS.read_text("ascii", "replace").splitlines()]
    except OSError:
        return []
    found = [fields[0].split("-") for fields in lines if len(fields) == 5 and fields[1] == "rw-p"]
    return [(int(start, 16), int(stop, 16)) for start, stop in found]


def _enabled() -> bool:
    try:
        return "[never]" not in _ENABLED.read_text("ascii")
    except OSError:
        return False


def _whole(memory: Range) -> Range | None:
    """The huge pages that lie within."""
    start, stop = -(-memory[0] // SIZE) * SIZE, memory[1] // SIZE * SIZE
    return (start, stop) if start < stop else None


def _collapse(ranges: Sequence[Range]) -> None:
    """Exchange pages until the time is up; what the system refuses stays as it is."""
    madvise, until = ctypes.CDLL(None).madvise, time.monotonic() + LIMIT_S
    for start, stop in ranges:
        for at in range(start, stop, STEP):
            if time.monotonic() > until:
                return
            madvise(ctypes.c_void_p(at), ctypes.c_size_t(min(STEP, stop - at)), ctypes.c_int(_MADV_COLLAPSE))
