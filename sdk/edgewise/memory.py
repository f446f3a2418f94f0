"""sdk: memory that a process may still take."""

from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, in this container too; None where the system does not say."""
    bounds = [bound for bound in (_machine(), _container()) if bound is not None]
    return min(bounds) if bounds else None


def _machine() -> int | None:
    try:
        fields = dict(line.split(":") for line in _MEMORY.read_text("ascii").splitlines())
        return int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, KeyError):
        return None


def _container() -> int | None:
    """What the limit of the control group leaves; pages of files that it can drop are not counted as taken."""
    try:
        limit = int((_GROUP / "memory.max").read_text("ascii"))
        used = int((_GROUP / "memory.current").read_text("ascii"))
        counters = dict(line.split() for line in (_GROUP / "memory.stat").read_text("ascii").splitlines())
        return limit - used + int(counters["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None  # "max", or no such group
