"""targets, ort: the lowering, step after step."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from edgewise.errors import OptionError
from edgewise.graph import get_facts, is_encoder
from edgewise.passes import Pass
from edgewise_targets.dialect import Dialect, Operators
from edgewise_targets.foreign.lower import LowerForeign
from edgewise_targets.ort.activation import FuseActivations
from edgewise_targets.ort.attention import FuseAttention
from edgewise_targets.ort.embedding import QuantizedEmbedding
from edgewise_targets.ort.encoder import LowerEncoder
from edgewise_targets.ort.experts import FuseExperts
from edgewise_targets.ort.floats import Floats, NarrowFloats
from edgewise_targets.ort.formats import RefuseSlowFormats
from edgewise_targets.ort.head import TiedHead
from edgewise_targets.ort.head_norms import NormInside
from edgewise_targets.ort.inputs import DropPositions, KeepLogits
from edgewise_targets.ort.integer import IntegerProducts
from edgewise_targets.ort.norms import FuseHeadNorms, FuseSkipNorms, PlainNorms
from edgewise_targets.ort.operators import OPERATORS
from edgewise_targets.ort.opset import StateOpset
from edgewise_targets.ort.packing import PackProjections
from edgewise_targets.ort.products import QuantizedProducts
from edgewise_targets.ort.relative import FuseEncoder
from edgewise_targets.ort.rotary import PlainRotary
from edgewise_targets.ort.scale import ScaleQueries
from edgewise_targets.tables import ContextTables


@dataclass(frozen=True)
class LowerOrt(Dialect):
    """Rewrites the canonical graph into ONNX Runtime's own operators.

    Attention keeps its cache in place, products with quantized weights stay quantized, and an optional input
    `logits_to_keep` spares the logits that nobody reads. `accuracy_level` is how products treat activations on a
    processor: 4 quantizes them to int8, which is fast; 0 leaves them in float32.

    `floats` is what everything else is computed and kept in, but for the logits, which are float32. `head_norms`: the
    norm of each head of queries and keys as one operator (branchwise), of three that all providers have (reshaped), or
    as inputs of attention (inside: CUDA, WebGPU). `rotary`: inside of attention, or operators before it, which read the
    input `position_ids` (DirectML). `packed`: queries, keys and values of one product, which attention reads whole.

    A graph of another exporter whose attention was not recognised keeps it: see `edgewise_targets.foreign`.
    """

    name: ClassVar[str] = "lower-ort"
    remaining: ClassVar[Operators] = OPERATORS

    accuracy_level: Literal[0, 4] = 4
    floats: Floats = "float32"
    head_norms: Literal["branchwise", "reshaped", "inside"] = "branchwise"
    rotary: Literal["inside", "before"] = "inside"
    packed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.head_norms, self.rotary) == ("inside", "before"):
            raise OptionError("head_norms: they cannot be inside of attention where rotary is before it")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if is_encoder(model):
            return LowerEncoder(self.accuracy_level)(model)
        if get_facts(model).stated:
            return super().call(model)
        return LowerForeign(self.accuracy_level, self.floats)(model)

    def steps(self) -> tuple[Pass, ...]:
        apart = self.rotary == "before"
        head_norms = {"branchwise": (FuseHeadNorms(),), "reshaped": (), "inside": (NormInside(),)}[self.head_norms]
        return (
            KeepLogits(),
            *((PlainRotary(),) if apart else ()),
            FuseEncoder(),
            FuseAttention(self.rotary),
            ContextTables(),
            *(() if apart else (DropPositions(),)),
            *head_norms,
            FuseExperts(self.accuracy_level),
            FuseActivations(),
            ScaleQueries(),
            *((PackProjections(),) if self.packed else ()),
            QuantizedEmbedding(),
            IntegerProducts(),
            QuantizedProducts(self.accuracy_level),
            FuseSkipNorms(),
            PlainNorms(),
            TiedHead(),
            NarrowFloats(self.floats),
            StateOpset(),
            RefuseSlowFormats(),
        )
