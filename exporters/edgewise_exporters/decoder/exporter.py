"""exporters, decoder: the exporter itself."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.options import unknown
from edgewise_exporters.decoder.architecture import read_architecture
from edgewise_exporters.decoder.families import FAMILIES
from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.model import build_model
from edgewise_exporters.decoder.weights import Weights


class Decoder:
    """Decoder-only language models, built from their configuration and weights alone."""

    name: str = "decoder"
    families: Mapping[str, Family] = FAMILIES

    def __init__(self, ignore_config: Sequence[str] = ()) -> None:
        self.ignore_config = tuple(ignore_config)  # keys of config.json that the caller knows to change nothing

    def supports(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.config.get("model_type") in self.families

    def export(self, checkpoint: Checkpoint) -> ir.Model:
        """The canonical graph of a checkpoint. Raises CheckpointError for anything that is not understood."""
        model_type = checkpoint.config.get("model_type")
        if model_type not in self.families:
            raise CheckpointError(
                f"config.json: {unknown('model_type', str(model_type), list(self.families))}; "
                "a plugin adds one with an exporter of its own (docs/families.md shows how)"
            )
        weights = Weights(checkpoint)
        model = build_model(read_architecture(checkpoint, self.families[model_type], self.ignore_config), weights)
        weights.refuse_rest(model_type)
        return model
