"""targets: what this package registers."""

from edgewise.hookspecs import hookimpl


@hookimpl
def register_passes() -> dict[str, str]:
    return {
        "lower-ort": "edgewise_targets.ort.lower:LowerOrt",
        "lower-primitive": "edgewise_targets.primitive.lower:LowerPrimitive",
        "lower-static": "edgewise_targets.static.lower:LowerStatic",
    }


@hookimpl
def register_targets() -> dict[str, str]:
    return {"cpu-x64": "edgewise_targets:profiles/cpu-x64.toml"}
