"""sdk, bench: energy that the machine says it has used, by counters of its own; never an estimate.

RAPL (Intel and AMD): https://docs.kernel.org/power/powercap/powercap.html. The counters wrap around.
INA3221 (NVIDIA Jetson): https://docs.kernel.org/hwmon/ina3221.html, power that is sampled.
"""

import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

RAPL = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")  # what feeds the board: the other rails are parts of it
PERIOD_S = 0.05  # between two samples of power


@dataclass(frozen=True)
class Energy:
    """Joules of the whole processor (or board) between two moments. `method`: what counted; None: nothing did."""

    joules: float | None
    method: str | None
    reason: str | None = None  # why there is no figure


class Counter(Protocol):
    """Counts from the moment that it is made."""

    method: str

    def joules(self) -> float: ...

    def close(self) -> None: ...


class Rapl:
    """The energy counters of the processor packages."""

    method = "rapl"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = [(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())) for zone in zones]
        self._last = [int(path.read_text()) for path, _ in self._zones]
        self._microjoules = 0

    def joules(self) -> float:
        for i, (path, span) in enumerate(self._zones):
            now = int(path.read_text())
            self._microjoules += (now - self._last[i]) % (span + 1)
            self._last[i] = now
        return self._microjoules / 1e6

    def close(self) -> None:
        pass


class Ina3221:
    """The power of a Jetson's rails, sampled in a thread and summed over time."""

    method = "ina3221"

    def __init__(self, rails: list[tuple[Path, Path]]) -> None:
        self._rails = rails  # millivolts, milliamperes
        self._joules = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def joules(self) -> float:
        return self._joules

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        last = time.perf_counter()
        while not self._done.wait(PERIOD_S):
            now = time.perf_counter()
            watts = sum(int(volt.read_text()) * int(ampere.read_text()) for volt, ampere in self._rails) / 1e6
            self._joules += watts * (now - last)
            last = now


@dataclass
class Meter(AbstractContextManager["Meter"]):
    """Measures what happens within it: `with Meter() as meter: ...`, then `meter.energy`."""

    rapl: Path = RAPL
    hwmon: Path = HWMON
    energy: Energy = field(default=Energy(None, None, "nothing was measured"), init=False)
    _counter: Counter | None = field(default=None, init=False)
    _reason: str = field(default="", init=False)

    def __enter__(self) -> "Meter":
        self._counter, self._reason = _counter(self.rapl, self.hwmon)
        return self

    @property
    def reason(self) -> str:
        """Why nothing counts; empty where something does."""
        return self._reason

    def joules(self) -> float | None:
        """So far; None where nothing counts."""
        return self._counter.joules() if self._counter else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._counter is None:
            self.energy = Energy(None, None, self._reason)
            return
        self.energy = Energy(self._counter.joules(), self._counter.method)
        self._counter.close()


def _counter(rapl: Path, hwmon: Path) -> tuple[Counter | None, str]:
    """A counter that has begun, or why there is none."""
    zones = [zone for zone in sorted(rapl.glob("*-rapl:*")) if zone.name.count(":") == 1]
    try:
        if zones:
            return Rapl(zones), ""
    except PermissionError:
        return None, f"{zones[0]}/energy_uj can be read by root only"
    except (OSError, ValueError) as error:
        return None, f"{zones[0]}: {error}"
    rails = _rails(hwmon)
    if rails:
        return Ina3221(rails), ""
    return None, "this machine has no energy counter that is known (RAPL, INA3221)"


def _rails(hwmon: Path) -> list[tuple[Path, Path]]:
    """Voltage and current of the rail that feeds the board; of all rails where none is named so."""
    rails: dict[str, tuple[Path, Path]] = {}
    for chip in sorted(hwmon.glob("hwmon*")):
        if _text(chip / "name") == "ina3221":
            for i in (1, 2, 3):
                volt, ampere = chip / f"in{i}_input", chip / f"curr{i}_input"
                if volt.exists() and ampere.exists():
                    rails[_text(chip / f"in{i}_label") or str(volt)] = (volt, ampere)
    whole = [rails[name] for name in WHOLE_BOARD if name in rails]
    return whole[:1] or list(rails.values())


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
