"""targets, ort: the lowering, step after step."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from edgewise.passes import Pass
from edgewise_targets.dialect import Dialect
from edgewise_targets.ort.activation import FuseActivations
from edgewise_targets.ort.attention import FuseAttention
from edgewise_targets.ort.embedding import QuantizedEmbedding
from edgewise_targets.ort.experts import FuseExperts
from edgewise_targets.ort.formats import RefuseSlowFormats
from edgewise_targets.ort.head import TiedHead
from edgewise_targets.ort.inputs import DropPositions, KeepLogits
from edgewise_targets.ort.integer import IntegerProducts
from edgewise_targets.ort.norms import FuseHeadNorms, FuseSkipNorms, PlainNorms
from edgewise_targets.ort.packing import PackProjections
from edgewise_targets.ort.products import QuantizedProducts
from edgewise_targets.ort.scale import ScaleQueries
from edgewise_targets.tables import ContextTables


@dataclass(frozen=True)
class LowerOrt(Dialect):
    """Rewrites the canonical graph into ONNX Runtime's own operators, for the CPU.

    Attention keeps its cache in place, products with quantized weights stay quantized, and an optional input
    `logits_to_keep` spares the logits that nobody reads. `accuracy_level` is how products treat activations: 4
    quantizes them to int8, which is fast; 0 leaves them in float32.
    """

    name: ClassVar[str] = "lower-ort"

    accuracy_level: Literal[0, 4] = 4

    def steps(self) -> tuple[Pass, ...]:
        return (
            KeepLogits(),
            FuseAttention(),
            ContextTables(),
            DropPositions(),
            FuseHeadNorms(),
            FuseSkipNorms(),
            PlainNorms(),
            FuseExperts(self.accuracy_level),
            FuseActivations(),
            ScaleQueries(),
            PackProjections(),
            QuantizedEmbedding(),
            IntegerProducts(),
            QuantizedProducts(self.accuracy_level),
            TiedHead(),
            RefuseSlowFormats(),
        )
