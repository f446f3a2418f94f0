"""sdk, bench: which machine a figure belongs to."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from edgewise.runtime.threads import physical_cores

_CPUINFO = Path("/proc/cpuinfo")
_MEMORY = Path("/proc/meminfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")


@dataclass(frozen=True)
class Host:
    """A machine, as far as it says what it is; what it does not say is None."""

    processor: str
    features: tuple[str, ...]  # of the processor, those that kernels choose by
    cores: int  # physical ones that this process may use
    memory_bytes: int | None
    system: str
    python: str
    edgewise: str
    onnxruntime: str
    governor: str | None  # how the processor's frequency is governed
    load: float | None  # processes that wanted to run, on average over the last minute: above 0, others were busy

    @classmethod
    def here(cls) -> "Host":
        """This machine, now."""
        import onnxruntime

        flags = (_field(_CPUINFO, "flags") or _field(_CPUINFO, "Features") or "").split()
        return cls(
            processor=processor(),
            features=tuple(feature for feature in _FEATURES if feature in flags),
            cores=physical_cores(),
            memory_bytes=_memory(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=platform.python_version(),
            edgewise=version("edgewise"),
            onnxruntime=onnxruntime.__version__,
            governor=_read(_GOVERNOR),
            load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        )


def processor() -> str:
    """The name of this machine's processor, or its architecture where the system has no name for it."""
    return _field(_CPUINFO, "model name") or platform.processor() or platform.machine()


def _memory() -> int | None:
    text = _field(_MEMORY, "MemTotal")
    return int(text.split()[0]) * 1024 if text else None


def _field(path: Path, name: str) -> str | None:
    """The first value of a field in a file of `name: value` lines."""
    for line in (_read(path) or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return None
