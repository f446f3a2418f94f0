"""exporters, decoder, packed: AWQ checkpoints (arXiv 2306.00978), in AutoAWQ's layout "gemm".

    qweight  int32 [in, out / 8]   codes of eight outputs, low bits first: outputs 0, 2, 4, 6, 1, 3, 5, 7
    qzeros   int32 [groups, out / 8]   zero points, in the same order
    scales   float [groups, out]
    weight = (code - zero_point) * scale

The scaling by activations is in the weights and in what comes before them; nothing of it is left to be done.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.errors import CheckpointError
from edgewise.quantized import pack
from edgewise.tensors import Streamed, cast
from edgewise_exporters.decoder.config import Config
from edgewise_exporters.decoder.packed.format import (
    FLOATS,
    INTEGERS,
    Expected,
    Packing,
    Stored,
    read_bits,
    read_group_size,
)
from edgewise_exporters.decoder.packed.turned import Turned, spread

WORD_OUTPUTS = 8
ORDER = [0, 4, 1, 5, 2, 6, 3, 7]  # where the code of each output is in a word


@dataclass(frozen=True)
class Awq(Packing):
    """Four bits, always with zero points."""

    def expected(self, rows: int, columns: int) -> dict[str, Expected]:
        groups = self.groups(columns)
        return {
            "qweight": Expected((columns, self.words(rows)), INTEGERS),
            "qzeros": Expected((groups, self.words(rows)), INTEGERS),
            "scales": Expected((groups, rows), FLOATS),
        }

    def stored(self, tensors: Mapping[str, Streamed], rows: int, columns: int) -> Stored:
        scales = cast(tensors["scales"], ir.DataType.FLOAT)

        def codes(start: int, stop: int) -> np.ndarray:
            return pack(_rows(self.turned["qweight"], tensors["qweight"], start, stop), self.bits)

        def zero_points(start: int, stop: int) -> np.ndarray:
            return _rows(self.turned["qzeros"], tensors["qzeros"], start, stop)

        def factors(start: int, stop: int) -> np.ndarray:
            return self.turned["scales"].read(scales, start, stop)

        return Stored(codes, factors, zero_points)


def _rows(turned: Turned, tensor: Streamed, start: int, stop: int) -> np.ndarray:
    """Codes of outputs start to stop, uint8 `[stop - start, len(tensor)]`."""
    words = turned.read(tensor, start // WORD_OUTPUTS, -(-stop // WORD_OUTPUTS))
    return spread(words, 4, ORDER)[start % WORD_OUTPUTS :][: stop - start]


def read_awq(table: Config) -> Awq:
    """The format that a `quantization_config` describes; CheckpointError for one that is not read."""
    named = [key for key in ("version", "checkpoint_format", "format") if table.get(key) is not None]
    layout = str(table.get(named[0])) if named else "gemm"
    if layout.lower() != "gemm":
        raise table.error(named[0], "'gemm', the one layout of AWQ that is read")
    if table.get("backend") == "llm-awq":
        raise CheckpointError(f"{table.where}: 'backend' is 'llm-awq', a layout of its own; expected 'autoawq'")
    return Awq(read_bits(table, (4,)), read_group_size(table))
