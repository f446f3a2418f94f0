"""tests: memory in huge pages, where the system has them."""

import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewise.runtime import pages
from edgewise.runtime.pages import SIZE, huge_pages, without

linux = pytest.mark.skipif(sys.platform != "linux", reason="huge pages of memory in use are Linux's")
RANGES = st.lists(st.integers(0, 60), unique=True, max_size=12).map(
    lambda ends: [(start, stop) for start, stop in zip(sorted(ends)[::2], sorted(ends)[1::2], strict=False)]
)


def numbers(ranges: list[tuple[int, int]]) -> set[int]:
    return {number for start, stop in ranges for number in range(start, stop)}


@given(RANGES, RANGES)
def test_what_is_left_of_ranges_is_in_them_and_in_no_others(
    ranges: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    assert numbers(list(without(ranges, others))) == numbers(ranges) - numbers(others)


def huge_bytes(array: NDArray[Any]) -> int:
    """How much of the memory around an array is in huge pages, as the kernel says."""
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text("utf-8", "replace").splitlines():
        name, _, rest = line.partition(" ")
        if "-" in name and not name.endswith(":"):
            start, stop = (int(number, 16) for number in name.split("-"))
            inside = start <= array.ctypes.data + array.nbytes // 2 < stop
        elif inside and name == "AnonHugePages:":
            found += int(rest.split()[0]) << 10
    return found


def memory(size: int) -> NDArray[np.uint8]:
    """Memory that was written to, as libraries take it; numpy's own asks for huge pages itself."""
    array = np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    array[:] = 7
    return array


@linux
def test_memory_that_is_taken_meanwhile_keeps_its_content_in_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LIMIT_S", 60)
    with huge_pages():
        array = memory(8 * SIZE)
    assert (array == 7).all()
    if not huge_bytes(array):
        pytest.skip("this kernel exchanges no pages (before Linux 6.1, turned off, or no whole ones are free)")


@linux
@pytest.mark.parametrize("content", ["always madvise [never]\n", None])
def test_pages_that_are_turned_off_or_not_there_stay_off(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "[always]" in pages._ENABLED.read_text("ascii"):
        pytest.skip("this system gives huge pages unasked")
    monkeypatch.setattr(pages, "_ENABLED", tmp_path / "enabled")
    if content is not None:
        pages._ENABLED.write_text(content)
    with huge_pages():
        array = memory(8 * SIZE)
    assert huge_bytes(array) == 0


def test_a_system_that_does_not_list_memory_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MAPS", tmp_path / "maps")
    with huge_pages():
        array = memory(2 * SIZE)
    assert (array == 7).all()
