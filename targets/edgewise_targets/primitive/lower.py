"""targets, primitive: the lowering, step after step."""

from dataclasses import dataclass
from typing import ClassVar

from edgewise.passes import Pass
from edgewise_targets.appended import AppendedCache
from edgewise_targets.dialect import Dialect
from edgewise_targets.ort.inputs import KeepLogits
from edgewise_targets.ort.products import QuantizedProducts
from edgewise_targets.primitive.activation import PlainGelu
from edgewise_targets.primitive.attention import PlainAttention
from edgewise_targets.primitive.inputs import PlainInputs
from edgewise_targets.primitive.norms import PlainNorms
from edgewise_targets.primitive.opset import OlderOpset
from edgewise_targets.primitive.rotary import PlainRotary
from edgewise_targets.tables import ContextTables


@dataclass(frozen=True)
class LowerPrimitive(Dialect):
    """Rewrites the canonical graph into plain operators: attention, norms and rotary embeddings as arithmetic."""

    name: ClassVar[str] = "lower-primitive"

    def steps(self) -> tuple[Pass, ...]:
        return (
            KeepLogits(),
            AppendedCache(),
            ContextTables(),
            PlainInputs(),
            PlainAttention(),
            PlainRotary(),
            PlainNorms(),
            PlainGelu(),
            QuantizedProducts(),
            OlderOpset(),
        )
