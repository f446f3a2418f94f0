"""exporters, decoder: the tensors of a checkpoint, each taken once and by its expected shape, as lazy float32 views."""

import re
from collections.abc import Sequence

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.tensors import Streamed, cast

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

IGNORABLE = re.compile(r"(.*\.)?rotary_emb(_local)?\.inv_freq")  # buffers that older libraries saved


class Weights:
    """Takes tensors from a checkpoint, and knows at the end which ones nobody took."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tensors = checkpoint.tensors
        self.taken: set[str] = set()

    def take(self, name: str, *shape: int) -> Streamed:
        """The tensor in float32. Raises CheckpointError where it is absent, or of another shape or kind."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"tensor '{name}' is absent; expected {list(shape)}")
        if tensor.dims != shape:
            raise CheckpointError(f"tensor '{name}' is {list(tensor.dims)}; expected {list(shape)}")
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"tensor '{name}' is {tensor.dtype}; expected BFLOAT16, FLOAT16 or FLOAT")
        self.taken.add(name)
        return cast(tensor, ir.DataType.FLOAT)

    def take_copy(self, name: str, original: str) -> None:
        """Accept a tensor that repeats another one, as some libraries save a tied lm_head."""
        if name not in self.tensors:
            return
        copy, tensor = self.take(name, *self.tensors[original].dims), self.take(original, *self.tensors[original].dims)
        for start, stop in tensor.blocks():
            if (copy.read(start, stop) != tensor.read(start, stop)).any():
                raise CheckpointError(
                    f"tensor '{name}' differs from '{original}', to which config.json ties it; "
                    "expected 'tie_word_embeddings': false, or equal tensors"
                )

    def refuse_rest(self, model_type: str) -> None:
        """Refuse a tensor that nobody took: it would be lost without a word."""
        rest = [name for name in self.tensors if name not in self.taken and not IGNORABLE.fullmatch(name)]
        if rest:
            tensor = self.tensors[min(rest)]
            more = f" (and {len(rest) - 1} more)" if len(rest) > 1 else ""
            raise CheckpointError(
                f"tensor '{min(rest)}', {list(tensor.dims)} {tensor.dtype}, has no place in a '{model_type}' "
                f"with this config.json{more}"
            )


def sizes(roles: Sequence[str], rows: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Where the rows of each role lie in a matrix that they share."""
    ends, start = {}, 0
    for role in roles:
        ends[role] = (start, start + rows[role])
        start += rows[role]
    return ends
