"""sdk, tasks: what time and energy cost, by a table of the user's."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from edgewise.bench.energy import Energy
from edgewise.errors import OptionError
from edgewise.options import parse

JOULES = 3.6e6  # in a kilowatt-hour
HOURS = 8766  # in a year


@dataclass(frozen=True, kw_only=True)
class Prices:
    """All in one currency. The device is paid for over its life, whether it is busy or not."""

    device: float  # its price
    years: float  # its life
    kilowatt_hour: float
    watts: float | None = None  # of the device at work, for machines that do not measure their energy

    def __post_init__(self) -> None:
        for name in ("device", "kilowatt_hour"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.years <= 0 or (self.watts is not None and self.watts <= 0):
            raise OptionError("years and watts must be more than 0")

    @classmethod
    def read(cls, path: Path) -> "Prices":
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise OptionError(f"{path}: {error}") from error
        return parse(cls, data, what=str(path))

    def cost(self, seconds: float, energy: Energy) -> float:
        """Of so much time, and of the energy that was measured, or else of `watts`; without either, of time alone."""
        joules = energy.joules if energy.joules is not None else (self.watts or 0.0) * seconds
        return self.device * seconds / (self.years * HOURS * 3600) + self.kilowatt_hour * joules / JOULES
