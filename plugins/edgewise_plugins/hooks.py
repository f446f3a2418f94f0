"""plugins: what this package registers."""

from edgewise.hookspecs import hookimpl


@hookimpl
def register_passes() -> dict[str, str]:
    return {"quantize": "edgewise_plugins.quantize:Quantize"}
