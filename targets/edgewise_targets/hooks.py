"""targets: what this package registers."""

from edgewise.hookspecs import hookimpl

TARGETS = (
    *("cpu-x64", "cpu-x64-vnni", "cpu-x64-avx2", "cpu-arm64", "raspberry-pi-5"),
    *("nvidia-gpu", "cuda", "h200", "l4", "rtx-4090", "jetson-orin-nano", "jetson-agx-orin", "tensorrt-rtx"),
    "directml",
    *("qnn", "qnn-x-elite", "qnn-8-elite", "qnn-8-gen3"),
    *("openvino-cpu", "openvino-cpu-compiled", "openvino-gpu", "openvino-npu"),
    *("coreml-m4", "ryzen-ai", "webgpu", "web-wasm"),
)


@hookimpl
def register_passes() -> dict[str, str]:
    return {
        "lower-ort": "edgewise_targets.ort.lower:LowerOrt",
        "lower-primitive": "edgewise_targets.primitive.lower:LowerPrimitive",
        "lower-static": "edgewise_targets.static.lower:LowerStatic",
    }


@hookimpl
def register_targets() -> dict[str, str]:
    return {name: f"edgewise_targets:profiles/{name}.toml" for name in TARGETS}
