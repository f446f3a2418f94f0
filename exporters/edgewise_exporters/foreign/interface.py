"""exporters, foreign: what goes into a decoder graph and comes out, by the names that optimum gives it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgewise.errors import CheckpointError
from edgewise.options import known

KNOWN = ("input_ids", "attention_mask", "position_ids", "past_key_values.N.key", "past_key_values.N.value")
NEEDED = ("input_ids", "attention_mask")
PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
FIX = "export it with task text-generation-with-past"


@dataclass(frozen=True)
class Interface:
    """The sizes of each layer's keys and values: heads, and numbers of a head."""

    cache: tuple[tuple[int, int], ...]


def check(model: ir.Model) -> Interface:
    """The sizes that a graph states. Raises CheckpointError for one that no session of ours could feed."""
    inputs = {str(value.name): value for value in model.graph.inputs if not value.is_initializer()}
    outputs = {str(value.name): value for value in model.graph.outputs}
    _check_inputs(inputs)
    if "logits" not in outputs:
        raise CheckpointError(f"the exported graph gives no logits; it gives {known(outputs)}")
    layers = len({match[1] for name in inputs if (match := PAST.fullmatch(name))})
    if not layers:
        raise CheckpointError(f"the exported graph has no cache (no input 'past_key_values.0.key'): {FIX}")
    for part in (parts := [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]):
        for name, values in ((f"past_key_values.{part}", inputs), (f"present.{part}", outputs)):
            if name not in values:
                raise CheckpointError(f"the exported graph has no '{name}', which {layers} layers have: {FIX}")
    for name in outputs:
        if name != "logits" and name.removeprefix("present.") not in parts:
            raise CheckpointError(f"the exported graph gives '{name}', which nobody reads; {FIX}, and nothing beside")
    return Interface(tuple(_sizes(inputs, layer) for layer in range(layers)))


def _check_inputs(inputs: Mapping[str, ir.Value]) -> None:
    for name in inputs:
        if name not in KNOWN and not PAST.fullmatch(name):
            raise CheckpointError(
                f"the exported graph has an input '{name}', which nobody would feed; known: {known(KNOWN)}"
            )
    for name in NEEDED:
        if name not in inputs:
            raise CheckpointError(f"the exported graph has no input '{name}'; it has {known(inputs)}")
    for name in ("input_ids", "attention_mask", "position_ids"):
        if name in inputs and inputs[name].dtype != ir.DataType.INT64:
            raise CheckpointError(f"the exported graph takes '{name}' as {inputs[name].dtype}, not as INT64")


def _sizes(inputs: Mapping[str, ir.Value], layer: int) -> tuple[int, int]:
    """Heads and head size of a layer's keys, which its values share."""
    found = [_size(inputs[f"past_key_values.{layer}.{part}"]) for part in ("key", "value")]
    if found[0] != found[1]:
        raise CheckpointError(
            f"the exported graph has keys of {found[0]} and values of {found[1]} (heads, head size) in layer {layer}; "
            "a session keeps them in buffers of one size"
        )
    return found[0]


def _size(value: ir.Value) -> tuple[int, int]:
    dims: Sequence[object] = tuple(value.shape or ())
    if value.dtype != ir.DataType.FLOAT:
        raise CheckpointError(f"the exported graph keeps '{value.name}' in {value.dtype}; export it in float32")
    if len(dims) != 4 or not isinstance(dims[1], int) or not isinstance(dims[3], int):
        shape = ", ".join(map(str, dims))
        raise CheckpointError(
            f"the exported graph has '{value.name}' of shape [{shape}]; expected [batch, heads, positions, head size], "
            "with numbers for heads and head size"
        )
    return dims[1], dims[3]
