"""exporters, decoder: the tensors of a checkpoint, taken by their expected shapes, as lazy float32 views."""

import re

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.quantized import BlockQuantized, cut
from edgewise.sizes import CHECKPOINT_BYTES
from edgewise.tensors import Streamed, cast, slice_rows
from edgewise_exporters.decoder.packed.format import FLOATS, Expected, Packing
from edgewise_exporters.decoder.packed.matrix import Matrix, read_matrix

IGNORABLE = re.compile(r"(.*\.)?rotary_emb(_local)?\.inv_freq")  # buffers that older libraries saved


class Weights:
    """Takes tensors from a checkpoint, and knows in the end which ones nobody took."""

    def __init__(self, checkpoint: Checkpoint, packing: Packing | None = None) -> None:
        self.tensors = checkpoint.tensors
        self.packing = packing
        self.taken: set[str] = set()
        self.unpacked: set[str] = set()  # packed modules whose weights become floats

    def take(self, name: str, *shape: int, rows: tuple[int, int] | None = None) -> Streamed:
        """The tensor, or some rows of it, in float32. CheckpointError where it is not what is expected."""
        tensor = self._take(name, Expected(shape, FLOATS))
        if rows is not None and rows != (0, shape[0]):
            tensor = slice_rows(tensor, *rows)
        return cast(tensor, ir.DataType.FLOAT)

    def take_stack(self, name: str, *shape: int, dtypes: tuple[ir.DataType, ...] = FLOATS) -> Streamed:
        """A tensor of which parts are used, as it is stored."""
        return self._take(name, Expected(shape, dtypes))

    def take_matrix(self, module: str, *shape: int, rows: tuple[int, int] | None = None) -> Matrix:
        """The weight of a linear module, or some rows of it: in float32, or packed with the codes that it has."""
        packing = self.packing
        if packing is None or f"{module}.qweight" not in self.tensors:
            return Matrix(self.take(f"{module}.weight", *shape, rows=rows))
        tensors = {
            part: self._take(f"{module}.{part}", expected)
            for part, expected in packing.expected(*shape).items()
            if f"{module}.{part}" in self.tensors or not expected.optional
        }
        matrix = read_matrix(packing, tensors, *shape)
        whole, (start, stop) = matrix.tensor, rows or (0, shape[0])
        if not isinstance(whole, BlockQuantized):
            self.unpacked.add(module)
        part = cut(whole, start, stop) if isinstance(whole, BlockQuantized) else slice_rows(whole, start, stop)
        stored = sum(tensor.nbytes for tensor in tensors.values())
        part.meta[CHECKPOINT_BYTES] = stored * (stop - start) // shape[0]
        return Matrix(part, matrix.order)

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

    def _take(self, name: str, wanted: Expected) -> Streamed:
        *others, last = [dtype.name for dtype in wanted.dtypes]
        tensor = self.tensors.get(name)
        expected = f"expected {list(wanted.shape)} {' or '.join(filter(None, [', '.join(others), last]))}"
        if tensor is None:
            raise CheckpointError(f"tensor '{name}' is absent{self._hint(name)}; {expected}")
        if tensor.dims != wanted.shape or tensor.dtype not in wanted.dtypes:
            raise CheckpointError(f"tensor '{name}' is {list(tensor.dims)} {tensor.dtype.name}; {expected}")
        self.taken.add(name)
        return tensor

    def _hint(self, name: str) -> str:
        packed = f"{name.removesuffix('.weight')}.qweight"
        if self.packing is not None or packed not in self.tensors:
            return ""
        return f" ('{packed}' is there, and config.json has no 'quantization_config')"

    def _adds_nothing(self, name: str) -> bool:
        """Whether a tensor is a bias of zeros, which older tools gave every module that they packed."""
        module, _, part = name.rpartition(".")
        return part == "bias" and f"{module}.qweight" in self.taken and not self.tensors[name].numpy().any()

    def refuse_rest(self, model_type: str, left_out: tuple[str, ...] = ()) -> None:
        """Refuse tensors that nobody took, but for modules that are left out: they would be lost without a word."""
        rest = sorted(name for name in self.tensors if name not in self.taken and not IGNORABLE.fullmatch(name))
        rest = [name for name in rest if not self._adds_nothing(name) and not name.startswith(left_out)]
        if rest:
            tensor = self.tensors[rest[0]]
            more = f" (nor have {len(rest) - 1} others)" if len(rest) > 1 else ""
            raise CheckpointError(
                f"tensor '{rest[0]}', {list(tensor.dims)} {tensor.dtype.name}, has no place in a "
                f"'{model_type}' with this config.json{more}"
            )
