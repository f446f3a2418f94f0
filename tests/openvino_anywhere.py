"""tests: OpenVINO on any processor: its plugin, but for the one comparison that wants the processor to be Intel's.

OpenVINO computes on AMD's processors as well; the plugin for ONNX Runtime offers them no device
(https://github.com/microsoft/onnxruntime/pull/31981 is about that). What is run is a copy of it, in a package that is
found beside the libraries that it loads.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import onnxruntime as ort
import pytest

PACKAGE, COPY = "onnxruntime_ep_openvino", "openvino_anywhere_copy"
PLUGIN = "libonnxruntime_providers_openvino_plugin.so"
# call HardwareDevice_VendorId; cmp eax, 0x8086 (Intel); je: of onnxruntime-ep-openvino 1.8.1
ASKED, NEVER_ASKED = bytes.fromhex("ff90a00900003d86800000742b"), bytes.fromhex("ff90a00900003d86800000eb2b")
INTEL = 0x8086


def library(folder: Path) -> str:
    """The import name of a package whose plugin finds this processor; skips the test where there is none.

    A copy lies in `folder`, which has to be in the path of imports.
    """
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        pytest.skip("onnxruntime-ep-openvino is not installed: pip install 'edgewise[openvino]'")
    if any(device.device.vendor_id == INTEL for device in ort.get_ep_devices() if device.device.type.name == "CPU"):
        return PACKAGE
    return _copied(Path(found.submodule_search_locations[0]), folder)


def _copied(source: Path, folder: Path) -> str:
    code = (source / PLUGIN).read_bytes() if (source / PLUGIN).exists() else b""
    if code.count(ASKED) != 1:
        pytest.skip("OpenVINO's plugin finds no device on this processor, and is not the one that tests know")
    package = folder / COPY
    package.mkdir(parents=True)
    for path in source.glob("lib*"):
        if not path.name.startswith(PLUGIN):
            os.symlink(path, package / path.name)
    (package / PLUGIN).write_bytes(code.replace(ASKED, NEVER_ASKED))
    text = (
        f"from pathlib import Path\n\n\ndef get_library_path():\n    return str(Path(__file__).parent / {PLUGIN!r})\n"
    )
    (package / "__init__.py").write_text(text)
    installed = folder / f"{COPY}-1.dist-info"  # a bundle may name installed packages only
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {COPY}\nVersion: 1\n")
    (installed / "top_level.txt").write_text(f"{COPY}\n")
    return COPY
