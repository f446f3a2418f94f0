"""exporters, decoder: the tensors of a checkpoint, taken by their expected shapes, as lazy float32 views."""

import re

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.tensors import Streamed, cast, slice_rows

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

IGNORABLE = re.compile(r"(.*\.)?rotary_emb(_local)?\.inv_freq")  # buffers that older libraries saved


class Weights:
    """Takes tensors from a checkpoint, and knows in the end which ones nobody took."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tensors = checkpoint.tensors
        self.taken: set[str] = set()

    def take(self, name: str, *shape: int, rows: tuple[int, int] | None = None) -> Streamed:
        """The tensor, or some rows of it, in float32. CheckpointError where it is not what is expected."""
        tensor, expected = self.tensors.get(name), f"expected {list(shape)} BFLOAT16, FLOAT16 or FLOAT"
        if tensor is None:
            raise CheckpointError(f"tensor '{name}' is absent; {expected}")
        if tensor.dims != shape or tensor.dtype not in FLOATS:
            raise CheckpointError(f"tensor '{name}' is {list(tensor.dims)} {tensor.dtype.name}; {expected}")
        self.taken.add(name)
        if rows is not None and rows != (0, shape[0]):
            tensor = slice_rows(tensor, *rows)
        return cast(tensor, ir.DataType.FLOAT)

    def take_copy(self, name: str, original: str) -> None:
        """Accept a tensor that repeats another one: some libraries save a tied lm_head beside the embedding."""
        if name not in self.tensors:
            return
        shape = self.tensors[original].dims
        copy, tensor = self.take(name, *shape), self.take(original, *shape)
        for start, stop in tensor.blocks():
            if (copy.read(start, stop) != tensor.read(start, stop)).any():
                raise CheckpointError(
                    f"tensor '{name}' differs from '{original}', although config.json ties them; "
                    "expected equal tensors, or 'tie_word_embeddings': false"
                )

    def refuse_rest(self, model_type: str) -> None:
        """Refuse tensors that nobody took: they would be lost without a word."""
        rest = sorted(name for name in self.tensors if name not in self.taken and not IGNORABLE.fullmatch(name))
        if rest:
            tensor = self.tensors[rest[0]]
            more = f" (nor have {len(rest) - 1} others)" if len(rest) > 1 else ""
            raise CheckpointError(
                f"tensor '{rest[0]}', {list(tensor.dims)} {tensor.dtype.name}, has no place in a "
                f"'{model_type}' with this config.json{more}"
            )
