"""exporters, t5: the exporter itself."""

from collections.abc import Mapping

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.contracts import Offer, Refusal
from edgewise.errors import CheckpointError
from edgewise.options import unknown
from edgewise_exporters.decoder.weights import Weights
from edgewise_exporters.t5.architecture import read_architecture
from edgewise_exporters.t5.model import build_model

SCALED = "libraries disagree whether its decoder's outputs are scaled"
OWN_ATTENTION = "its encoder attends to neighbours and to summaries of blocks"
ANSWERS = ("ForConditionalGeneration", "WithLMHeadModel")  # ends of names of classes in transformers
UNREAD = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.",)  # old files have it, nothing reads it


class T5:
    """Encoder-decoders: T5, T5 1.1, Flan-T5, mT5 and their descendants, from configuration and weights alone."""

    name: str = "t5"
    families: Mapping[str, str] = {"t5": "T5 and Flan-T5", "mt5": "mT5"}
    missing: Mapping[str, str] = {"umt5": SCALED, "longt5": OWN_ATTENTION}

    def supports(self, checkpoint: Checkpoint) -> bool:
        return isinstance(self.appraise(checkpoint), Offer)

    def appraise(self, checkpoint: Checkpoint) -> Offer | Refusal:
        """What it would give: a family that it knows, of a checkpoint that answers with a text."""
        kind, classes = str(checkpoint.config.get("model_type")), checkpoint.config.get("architectures") or []
        if kind in self.missing:
            return Refusal(f"config.json: there is no '{kind}' yet: {self.missing[kind]}", near=True)
        if kind not in list(self.families):
            return Refusal(f"config.json: {unknown('model_type', kind, list(self.families))}")
        if others := [name for name in classes if not str(name).endswith(ANSWERS)]:
            return Refusal(f"config.json: '{others[0]}' is no encoder-decoder that answers with a text", near=True)
        return Offer("text2text-generation", "canonical", "in place")

    def export(self, checkpoint: Checkpoint) -> ir.Model:
        """The canonical graph of a checkpoint. Raises CheckpointError for anything that is not understood."""
        if isinstance(refusal := self.appraise(checkpoint), Refusal):
            raise CheckpointError(refusal.reason)
        weights = Weights(checkpoint)
        model = build_model(read_architecture(checkpoint), weights)
        weights.refuse_rest(checkpoint.config["model_type"], UNREAD)
        return model
