"""targets, ort: rotary embeddings before attention, for providers whose attention does not rotate (DirectML)."""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgewise.graph import get_facts
from edgewise_targets.step import Step, become


@dataclass(frozen=True)
class PlainRotary(Step):
    """RotaryEmbedding of ONNX Runtime, older than that of ONNX; it reads `position_ids`, which stays an input."""

    name: ClassVar[str] = "ort-rotary"

    def rewrite(self, model: ir.Model) -> bool:
        dims = {name: rotary.dim for name, rotary in get_facts(model).rotary.items()}
        nodes = [node for node in model.graph if node.op_type == "RotaryEmbedding" and not node.domain]
        for node in nodes:
            x, cos, sin, positions = node.inputs
            assert cos is not None
            table = str(cos.name).split(".")[1]
            heads = node.attributes.get_int("num_heads", 0)
            interleaved = node.attributes.get_int("interleaved", 0)
            attributes = {"num_heads": heads, "rotary_embedding_dim": dims[table], "interleaved": interleaved}
            become(node, "RotaryEmbedding", [x, positions, cos, sin], attributes)
        return bool(nodes)
