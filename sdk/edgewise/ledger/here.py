"""sdk, ledger: whether this machine is the target, and how fast bundles are on it."""

import platform
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgewise.bench.host import processor
from edgewise.bench.speed import Speed, measure
from edgewise.bundle.manifest import CPU
from edgewise.errors import EdgewiseError
from edgewise.ledger.variant import Pace
from edgewise.placement import is_emulated
from edgewise.probe.machine import PROFILES
from edgewise.registry import registry
from edgewise.runtime.providers import check
from edgewise.runtime.runner import Runner
from edgewise.target import Target
from edgewise.writer import Progress


def not_here(target: Target) -> str:
    """Why this machine is not the target, so that nothing measured here is its speed; empty where it is."""
    if target.providers[0].name == CPU.name:
        return _other_processor(target)
    try:
        check(target.providers)
    except EdgewiseError as error:
        return str(error)
    return "it is emulated here" if is_emulated(target.providers) else ""


def measured(
    bundles: Sequence[Path], *, runs: int, threads: int | None = None, progress: Progress | None = None
) -> list[Pace]:
    """The speed of each bundle here: medians of runs in turn, so that a slow moment hits all. One is open at a time."""
    found: list[list[Speed]] = [[] for _ in bundles]
    for run in range(runs):
        for index, (bundle, speeds) in enumerate(zip(bundles, found, strict=True)):
            if progress:
                progress("measure", run * len(bundles) + index, runs * len(bundles))
            with Runner.open(bundle, threads=threads, verify=False, prefix_cache=0) as runner:
                speeds.append(measure(runner, runs=1))
    return [_pace(speeds) for speeds in found]


def _other_processor(target: Target) -> str:
    machine, chip = platform.machine().lower(), target.device.chip
    if PROFILES.get(machine, "") not in _ancestors(target):
        return f"this machine is of the kind '{machine}'"
    return f"this machine has another processor, {processor()}" if chip and chip != processor() else ""


def _ancestors(target: Target) -> Iterator[str]:
    """The names of a target and of all that it goes on from."""
    yield target.name
    if target.extends:
        yield from _ancestors(registry().find_target(target.extends))


def _pace(speeds: Sequence[Speed]) -> Pace:
    """The medians of several measurements."""
    return Pace(
        statistics.median(speed.prefill.median for speed in speeds),
        statistics.median(speed.decode.median for speed in speeds),
    )
