"""sdk: a second graph for long prompts, beside the one that decodes: the same model, multiplied as integers (W8A8).

Decoding waits for memory, so its weights are few bits; a long prompt waits for arithmetic, and int8 with 8-bit
activations is the fastest there is on a CPU. Both graphs have one cache, and the embedding, the norms and the lm_head
are stored once.
"""

from collections.abc import Mapping
from typing import Literal

import onnx_ir as ir

from edgewise.errors import OptionError, RecipeError
from edgewise.graph import activations, linears
from edgewise.integer import Int8Rows
from edgewise.passes import BuildContext
from edgewise.quantized import BlockQuantized
from edgewise.recipe import RecipeStep
from edgewise.steps import apply, resolve
from edgewise.tensors import Streamed, map_rows

Prefill = Literal["int8"]

CHUNK = 256  # tokens at a time: weights are read half as often as with 128; attention looks at more that is masked
FROM_TOKENS = 32  # fewer are faster, or as fast, in the graph that decodes: measured with int4, block 128, on x86-64


def remember(model: ir.Model, floats: dict[str, Streamed]) -> None:
    """Keep the matrices that no step has quantized yet, by name: what is quantized for prompts begins with them."""
    for linear in linears(model):
        if not isinstance(linear.matrix, BlockQuantized):
            floats[linear.name] = linear.matrix


def prefill_graph(model: ir.Model, floats: Mapping[str, Streamed], context: BuildContext) -> ir.Model:
    """The canonical graph for prompts, of a model whose recipe has been applied, which stays as it was.

    Matrices of the layers that the recipe left in floats are left in floats here too, and where int8 activations were
    measured to be too coarse, the product stays the one that decodes; so do experts, whose operator has no int8
    activations of this kind, and whose weights are stored once. Raises OptionError where it would be the same
    graph once more.
    """
    prompts = model.clone()
    kept, changed = [], 0
    for linear in linears(prompts):
        matrix = linear.matrix
        if linear.layer is None or linear.expert is not None:
            continue
        if not isinstance(matrix, BlockQuantized):
            kept.append(linear.name)
        elif not isinstance(matrix.form, Int8Rows) and not activations(linear.node):
            linear.replace(floats.get(linear.name) or map_rows(matrix, lambda rows: rows))
            changed += 1
    if not changed:
        raise OptionError(
            "prefill 'int8' would be the same graph once more: the recipe leaves the layers in floats or in w8a8"
        )
    steps = resolve([RecipeStep("w8a8", {"embedding": False, "keep": kept})], where="prefill")
    return apply(prompts, steps, context, error=RecipeError)
