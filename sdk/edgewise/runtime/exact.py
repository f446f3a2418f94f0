"""sdk, runtime: products of int8 weights and uint8 activations, summed exactly on every processor.

x86 processors before VNNI add two products in 16 bits, which overflow. ONNX Runtime has a way around that
(`session.x64quantprecision`), with the same results and half the speed; elsewhere the setting has no effect.
"""

from collections.abc import Mapping
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def exact_products() -> Mapping[str, str]:
    """Session configuration entries for this processor; on a system that does not name its features, the safe ones."""
    return {} if _has_vnni() else {"session.x64quantprecision": "1"}


def _has_vnni() -> bool:
    try:
        lines = _CPUINFO.read_text("utf-8").splitlines()
    except OSError:
        return False
    return any("vnni" in line for line in lines if line.startswith("flags"))
