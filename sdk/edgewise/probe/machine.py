"""sdk, probe: the machine at hand, measured, as a target's profile: `edgewise probe`."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from edgewise.bench.bandwidth import BYTES, bandwidth
from edgewise.bench.energy import Meter
from edgewise.bench.host import Host
from edgewise.errors import OptionError, TargetError
from edgewise.memory import available_memory, physical_memory
from edgewise.probe.kernels import KINDS, Kind, Rate, attention_rate, dispatch_seconds, product_rate
from edgewise.probe.toml import lines
from edgewise.runtime.threads import physical_cores
from edgewise.target import Kernel, Number

Progress = Callable[[str, int, int], None]  # stage, done, total

PROFILES = {"x86_64": "cpu-x64", "amd64": "cpu-x64", "aarch64": "cpu-arm64", "arm64": "cpu-arm64"}
SMALL = "int4 block 128"  # the products that the time of operators is measured between
BUDGET = 0.3  # seconds, for one figure
ALL_BYTES = 1 << 30  # that the threads which read memory are given together, at most


@dataclass(frozen=True)
class Probe:
    """What was measured of a machine."""

    host: Host
    extends: str  # the profile that it goes on from
    threads: int
    day: date
    providers: tuple[str, ...]  # of this onnxruntime
    memory: int | None  # bytes
    available: int | None  # of them, now
    bandwidths: Mapping[int, float]  # bytes a second, by threads
    kernels: Mapping[str, Rate]
    dispatch: float  # seconds that an operator takes beside its operations
    watts: float | None  # while it computed, where the machine has a counter

    @property
    def source(self) -> str:
        return f"edgewise probe, {self.day}, {self.host.processor}, {_threads(self.threads)}"

    @property
    def bandwidth(self) -> float:
        """Bytes a second: the most that threads read, be it in products of floats, which read each weight once."""
        floats = self.kernels.get("float32")
        return max([*self.bandwidths.values(), 2 * floats.decode if floats else 0.0])

    def profile(self, name: str) -> str:
        """TOML that `--target FILE.toml` reads."""
        hardware: dict[str, object] = {
            "memory": self._number(self.memory),
            "usable": self._number(self.available / self.memory if self.available and self.memory else None, 3),
            "bandwidth": self._number(self.bandwidth),
            "dispatch": self._number(self.dispatch, 3),
            "power": self._number(self.watts, 3),
            "kernels": {kind: self._kernel(rate) for kind, rate in self.kernels.items()},
        }
        table = {
            "name": name,
            "description": f"{self.host.processor}, as it was measured with {_threads(self.threads)}",
            "extends": self.extends,
            "device": {"chip": self.host.processor, "arch": ", ".join(self.host.features) or platform.machine()},
            "hardware": hardware,
        }
        return "\n".join([*self._remarks(), *lines(table)]) + "\n"

    def _number(self, value: float | None, digits: int = 4) -> Number | None:
        return Number(_round(value, digits), self.source, "measured") if value else None

    def _kernel(self, rate: Rate) -> Kernel:
        decode, prefill = (Number(_round(value), self.source, "measured") for value in (rate.decode, rate.prefill))
        return Kernel(decode, prefill)

    def _remarks(self) -> Iterator[str]:
        yield f"# onnxruntime {self.host.onnxruntime}, {self.host.system}; providers: {', '.join(self.providers)}"
        rates = ", ".join(f"{rate / 1e9:.1f} with {threads}" for threads, rate in self.bandwidths.items())
        yield f"# GB/s read from memory, by threads: {rates}"


def probe(
    *,
    threads: int | None = None,
    kinds: Mapping[str, Kind] = KINDS,
    budget: float = BUDGET,
    progress: Progress | None = None,
) -> Probe:
    """Measure this machine, as ONNX Runtime uses it with so many threads: one for each core, unless told otherwise.

    It takes half a minute, and means something on a machine that does nothing else. `budget` is the time that
    each figure is given, in seconds. Raises TargetError on machines that no profile describes, OptionError.
    """
    import onnxruntime

    used, extends = _threads_to_use(threads), _profile_here()
    tell = progress or _say_nothing
    whole = len(kinds) + 3
    tell("probe", 0, whole)
    bandwidths = {count: bandwidth(count, bytes_each=min(BYTES, ALL_BYTES // count)) for count in counts(used)}
    rates: dict[str, Rate] = {}
    started = time.perf_counter()
    with Meter() as meter:
        for done, (name, kind) in enumerate(kinds.items(), start=1):
            tell("probe", done, whole)
            rates[name] = product_rate(kind, threads=used, budget=budget)
    joules, elapsed = meter.energy.joules, time.perf_counter() - started
    tell("probe", whole - 2, whole)
    rates["attention"] = attention_rate(threads=used, budget=budget)
    tell("probe", whole - 1, whole)
    small = rates.get(SMALL) or product_rate(KINDS[SMALL], threads=used, budget=budget)
    return Probe(
        host=Host.here(),
        extends=extends,
        threads=used,
        day=date.today(),
        providers=tuple(onnxruntime.get_available_providers()),
        memory=physical_memory(),
        available=available_memory(),
        bandwidths=bandwidths,
        kernels=rates,
        dispatch=dispatch_seconds(small, threads=used, budget=budget),
        watts=joules / elapsed if joules else None,
    )


def _threads_to_use(asked: int | None) -> int:
    used = physical_cores() if asked is None else asked
    if used < 1:
        raise OptionError(f"threads is {used}; it must be 1 or more")
    return used


def _profile_here() -> str:
    """The profile that one of this machine goes on from."""
    machine = platform.machine().lower()
    if machine not in PROFILES:
        raise TargetError(
            f"this machine is of the kind '{machine}'; there are profiles to go on from for x86-64 and arm64"
        )
    return PROFILES[machine]


def _say_nothing(stage: str, done: int, total: int) -> None:
    """The progress of what nobody watches."""


def name_of(path: Path) -> str:
    """The name of a profile in a file. Raises OptionError for what `--target` would not take, or has no folder."""
    if path.suffix != ".toml":
        raise OptionError(f"{path}: a profile is a file that ends in .toml")
    if not path.parent.is_dir():
        raise OptionError(f"{path}: there is no folder {path.parent}")
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in path.stem.lower()).strip("-") or "this-machine"


def counts(threads: int) -> Sequence[int]:
    """1, 2, 4, ... and all of them."""
    powers = [1 << i for i in range(threads.bit_length())]
    return sorted({*(count for count in powers if count <= threads), threads})


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _round(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")
