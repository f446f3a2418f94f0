"""sdk, runtime: how many threads compute: one for each physical core that this process may use."""

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Physical cores that the process may run on: its affinity and its container's quota included."""
    cores = {_siblings(cpu) for cpu in _allowed()}
    return max(1, min(len(cores), _quota()))


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    """Which hardware threads share a core with this one; itself where the system does not say."""
    try:
        return (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text("ascii").strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Processors' worth of time that a container is given, rounded up; no bound where there is none."""
    try:
        quota, period = _QUOTA.read_text("ascii").split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return 1 << 30
