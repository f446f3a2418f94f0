"""targets, ort: encoders: their products with quantized weights as ONNX Runtime's own, and all else as it is.

What a graph for embeddings or classification is made of runs as it was exported: ONNX Runtime 1.31.1 fuses GELU with
its bias by itself when it loads it, and leaves attention and the sums before norms as they are.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx
import onnx_ir as ir

from edgewise.bundle.manifest import CPU
from edgewise.errors import LoweringError
from edgewise.graph import any_facts
from edgewise.passes import Pass, context_of
from edgewise_targets.dialect import Dialect, Operators
from edgewise_targets.ort.embedding import QuantizedEmbedding
from edgewise_targets.ort.formats import RefuseSlowFormats
from edgewise_targets.ort.integer import IntegerProducts
from edgewise_targets.ort.opset import StateOpset
from edgewise_targets.ort.products import QuantizedProducts

STANDARD = frozenset(schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain)
OURS = frozenset({"GatherBlockQuantized", "MatMulIntegerToFloat", "MatMulNBits"})


@dataclass(frozen=True)
class LowerEncoder(Dialect):
    """Integer products for matrices of int8 rows, MatMulNBits for those in blocks; any operator of the standard."""

    name: ClassVar[str] = "lower-ort"
    remaining: ClassVar[Operators] = {"": STANDARD, "com.microsoft": OURS}

    accuracy_level: Literal[0, 4] = 4

    def steps(self) -> tuple[Pass, ...]:
        return (
            QuantizedEmbedding(),
            IntegerProducts(),
            QuantizedProducts(self.accuracy_level),
            StateOpset(),
            RefuseSlowFormats(),
        )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        target = context_of(model).target
        if target and target.providers[0].name != CPU.name:
            raise LoweringError(
                f"target '{target.name}' runs on {target.providers[0].name}; models for {any_facts(model).task} are "
                f"lowered for {CPU.name} only: build for a processor"
            )
        return super().call(model)
