"""exporters, decoder, families: one file per family, named by its model_type."""

from edgewise_exporters.decoder.families import llama

FAMILIES = {module.FAMILY.model_type: module.FAMILY for module in (llama,)}
