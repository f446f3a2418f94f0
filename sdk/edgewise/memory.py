"""sdk: memory: how much there is, and how much of it a process may still take."""

import os
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, in this container too; None where the system does not say."""
    bounds = [bound for bound in (_machine(), _container()) if bound is not None]
    return min(bounds) if bounds else None


def physical_memory() -> int | None:
    """Bytes that there are, in this container; None where the system does not say."""
    bounds = [bound for bound in (_pages(), _limit()) if bound is not None]
    return min(bounds) if bounds else None


def _pages() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return None


def _limit() -> int | None:
    try:
        return int((_GROUP / "memory.max").read_text("ascii"))
    except (OSError, ValueError):
        return None  # "max", or no such group


def _machine() -> int | None:
    try:
        fields = dict(line.split(":") for line in _MEMORY.read_text("ascii").splitlines())
        return int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, KeyError):
        return None


def _container() -> int | None:
    """What the limit of the control group leaves; pages of files that it can drop are not counted as taken."""
    try:
        used = int((_GROUP / "memory.current").read_text("ascii"))
        counters = dict(line.split() for line in (_GROUP / "memory.stat").read_text("ascii").splitlines())
        limit = _limit()
        return None if limit is None else limit - used + int(counters["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None
