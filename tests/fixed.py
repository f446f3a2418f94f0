"""tests: targets whose graphs leave their cache to the runtime, with lengths that are fixed, or are not; on the CPU."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from edgewise.bundle.manifest import Provider
from edgewise.graph import get_facts
from edgewise.passes import BuildContext
from edgewise.recipe import RecipeStep
from edgewise.runtime.model import Model
from edgewise.target import Lengths, Needs, Target
from edgewise.writer import write_model
from edgewise_targets.ort.lower import LowerOrt
from edgewise_targets.primitive.lower import LowerPrimitive
from edgewise_targets.static.lower import LowerStatic

CPU = (Provider("CPUExecutionProvider"),)
CONTEXT = 320  # two whole pieces of a prompt and a half
PRIMITIVE = RecipeStep("lower-primitive")
INT4 = RecipeStep("quantize", {"bits": 4, "block_size": 32, "symmetric": True})

FIXED = Target(
    "fixed",
    "two graphs of fixed lengths",
    CPU,
    needs=Needs(static=Lengths(128)),
    context=CONTEXT,
    recipe=(INT4,),
    lowering=(RecipeStep("lower-static"),),
)

FREE = replace(FIXED, name="free", description="one graph of any length", needs=Needs(), lowering=(PRIMITIVE,))

Kind = Literal["ort", "free", "fixed"]


def model(
    kind: Kind, canonical: ir.Model, folder: Path, *, context: int, width: int = 128, margin: int | None = None
) -> Model:
    """A canonical graph, which stays as it is, lowered to a dialect and loaded; with `margin`, with rings."""
    path, facts = folder / f"{kind}-{context}.onnx", get_facts(canonical)
    if kind != "fixed":
        lower = LowerOrt() if kind == "ort" else LowerPrimitive()
        write_model(lower(canonical.clone()).model, path)
        return Model(path, facts, context=context, threads=1)
    prompts = path.with_name(f"prompts-{context}-{width}.onnx")
    for tokens, place in ((1, path), (width, prompts)):
        lowered = canonical.clone()
        lowered.meta["edgewise"] = BuildContext(context=context, width=tokens, margin=margin)
        write_model(LowerStatic()(lowered).model, place)
        facts = get_facts(lowered)
    return Model(path, facts, threads=1, prompts=prompts, prefill_from=3, capacity=context)
