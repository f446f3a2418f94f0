"""sdk, runtime: the library of ONNX Runtime, loaded without its telemetry."""

import os

from edgewise.extras import extras

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
with extras():
    import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["first_line", "onnxruntime"]


def first_line(error: BaseException) -> str:
    """What ONNX Runtime said, without what its log adds."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
