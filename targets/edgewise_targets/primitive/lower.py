"""targets, primitive: the lowering, step after step."""

from dataclasses import dataclass
from typing import ClassVar

from edgewise.passes import Pass
from edgewise_targets.appended import AppendedCache
from edgewise_targets.dialect import Dialect, Operators
from edgewise_targets.ort.packing import PackProjections
from edgewise_targets.ort.products import QuantizedProducts
from edgewise_targets.primitive.activation import PlainGelu
from edgewise_targets.primitive.attention import PlainAttention
from edgewise_targets.primitive.embedding import PlainEmbedding
from edgewise_targets.primitive.inputs import ConstantTables, PlainInputs, ScoredTokens
from edgewise_targets.primitive.norms import PlainNorms
from edgewise_targets.primitive.opset import OPERATORS, OlderOpset
from edgewise_targets.primitive.rotary import PlainRotary


@dataclass(frozen=True)
class LowerPrimitive(Dialect):
    """Rewrites the canonical graph into plain operators: attention, norms and rotary embeddings as arithmetic.

    What runs it keeps the cache, and gives the graph a bias that says who sees what. Opset 17, and MatMulNBits where
    weights are quantized. Lengths are free, or those of the build (`needs.static` of the target).
    """

    name: ClassVar[str] = "lower-primitive"
    remaining: ClassVar[Operators] = OPERATORS

    def steps(self) -> tuple[Pass, ...]:
        return (
            ScoredTokens(),
            AppendedCache(),
            ConstantTables(),
            PlainInputs(),
            PlainRotary(),
            PlainAttention(),
            PlainNorms(),
            PlainGelu(),
            PlainEmbedding(),
            PackProjections(),
            QuantizedProducts(accuracy_level=0),
            OlderOpset(),
        )
