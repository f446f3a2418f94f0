"""sdk, confined: what a program that nobody vouches for may use."""

from dataclasses import dataclass

from edgewise.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """It reads what Python is installed in, writes in a folder of its own, and has no network and no other process."""

    seconds: float = 10  # of wall-clock time, and (rounded up) of processor time
    memory: int = 1 << 30  # bytes of address space
    written: int = 16 << 20  # bytes of a file

    def __post_init__(self) -> None:
        for name in ("seconds", "memory", "written"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be more than 0")


DEFAULT = Limits()
