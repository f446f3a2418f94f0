"""exporters, decoder: the exporter itself."""

import logging
from collections.abc import Mapping

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.contracts import Offer, Refusal
from edgewise.errors import CheckpointError
from edgewise.options import unknown
from edgewise_exporters.decoder.architecture import read_architecture
from edgewise_exporters.decoder.back import checkpoint_of
from edgewise_exporters.decoder.families import FAMILIES
from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.model import build_model
from edgewise_exporters.decoder.weights import Weights

logger = logging.getLogger(__name__)

CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification")
LATENT = "it attends through latent keys and values (MLA), which the canonical graph has no form for"


class Decoder:
    """Decoder-only language models, built from their configuration and weights alone."""

    name: str = "decoder"
    families: Mapping[str, Family] = FAMILIES
    missing: Mapping[str, str] = dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_k2"), LATENT)

    def supports(self, checkpoint: Checkpoint) -> bool:
        return isinstance(self.appraise(checkpoint), Offer)

    def appraise(self, checkpoint: Checkpoint) -> Offer | Refusal:
        """What it would give: a family that it knows, of a checkpoint that generates text."""
        kind = checkpoint.config.get("model_type")
        if kind in list(self.families):
            refusal = _other_task(checkpoint)
            return Refusal(refusal, near=True) if refusal else Offer("text-generation", "canonical", "in place")
        if str(kind) in self.missing:
            return Refusal(f"config.json: there is no '{kind}' yet: {self.missing[str(kind)]}", near=True)
        return Refusal(
            f"config.json: {unknown('model_type', str(kind), list(self.families))}; "
            "a plugin adds one with an exporter of its own (docs/families.md shows how)"
        )

    def export(self, checkpoint: Checkpoint) -> ir.Model:
        """The canonical graph of a checkpoint. Raises CheckpointError for anything that is not understood."""
        if isinstance(refusal := self.appraise(checkpoint), Refusal):
            raise CheckpointError(refusal.reason)
        family = self.families[checkpoint.config["model_type"]]
        architecture = read_architecture(checkpoint, family)
        weights = Weights(checkpoint, architecture.packing)
        model = build_model(architecture, weights)
        weights.refuse_rest(family.model_type, architecture.left_out)
        _tell_unpacked(sorted(weights.unpacked))
        return model

    def checkpoint(self, model: ir.Model, source: Checkpoint) -> Checkpoint:
        """The graph of a checkpoint, after passes, as one again. Raises GraphError for what its family cannot say."""
        return checkpoint_of(model, source, self.families[source.config["model_type"]], self.export)


def _other_task(checkpoint: Checkpoint) -> str:
    """Why a checkpoint of a known family is for something else than text generation; empty where it is for that."""
    if checkpoint.other("modules.json") is not None:
        return "modules.json: it is a model of sentence-transformers, which embeds texts and writes none"
    names = checkpoint.config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    if name.endswith(CLASSIFIERS):
        return f"config.json: '{name}' is a classifier, which writes no text"
    return ""


def _tell_unpacked(modules: list[str]) -> None:
    if modules:
        logger.warning(
            "%d packed matrices become floats (the first is %s), as no kernel takes groups like theirs; "
            "a quantize step rounds them again",
            len(modules),
            modules[0],
        )
