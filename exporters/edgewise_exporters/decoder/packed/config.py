"""exporters, decoder, packed: the format that a configuration's `quantization_config` names."""

from collections.abc import Callable

from edgewise.errors import CheckpointError
from edgewise.options import known
from edgewise_exporters.decoder.config import Config
from edgewise_exporters.decoder.packed.awq import read_awq
from edgewise_exporters.decoder.packed.format import Packing
from edgewise_exporters.decoder.packed.gptq import read_gptq

METHODS: dict[str, Callable[[Config], Packing]] = {"awq": read_awq, "gptq": read_gptq}


def read_packing(config: Config, *, mxfp4: bool = False) -> Packing | None:
    """How the weights of linear modules are packed; None where they are floats.

    `mxfp4`: whether the family has stacks of experts that may be packed so, which is seen in their tensors.
    Of the many keys that tools leave there, those are read that change what the tensors mean; how a quantizer was
    set up is not asked, and which modules it left alone (`modules_to_not_convert`) is seen in the tensors.
    """
    if not config.get("quantization_config"):
        return None
    table = config.table("quantization_config")
    method = str(table.get("quant_method"))
    if mxfp4 and method == "mxfp4":
        return None
    if method not in METHODS:
        raise CheckpointError(
            f"{config.where}: the checkpoint is quantized already ('quant_method': '{method}'), in a way that is not "
            f"read; known: {known(METHODS)}; or use the checkpoint that it was made from"
        )
    return METHODS[method](table)
