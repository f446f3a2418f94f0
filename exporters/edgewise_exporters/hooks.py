"""exporters: what this package registers."""

from edgewise.hookspecs import hookimpl


@hookimpl
def register_exporters() -> dict[str, str]:
    return {
        "decoder": "edgewise_exporters.decoder:Decoder",
        "optimum": "edgewise_exporters.optimum:Optimum",
        "t5": "edgewise_exporters.t5:T5",
    }
