"""exporters, decoder, packed: GPTQ checkpoints (arXiv 2210.17323), in the layout of AutoGPTQ and GPTQModel.

    qweight  int32 [in * bits / 32, out]   codes of a column, low bits first
    qzeros   int32 [groups, out * bits / 32]   zero points, less one in version 1
    scales   float [groups, out]
    g_idx    int32 [in]   the group of each input feature
    weight = (code - zero_point) * scale

Version 1 stores `zero_point - 1`, subtracted from whole words: a zero point of 0 borrows from its neighbour. One is
added back the same way, with carries, as GPTQModel does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from edgewise.errors import CheckpointError
from edgewise.tensors import Streamed, cast
from edgewise_exporters.decoder.config import Config
from edgewise_exporters.decoder.packed.format import (
    FLOATS,
    INTEGERS,
    WORD,
    Expected,
    Packing,
    Stored,
    read_bits,
    read_group_size,
)
from edgewise_exporters.decoder.packed.turned import spread

FORMATS = {"gptq": 1, "gptq_v2": 0}  # what was subtracted from zero points


@dataclass(frozen=True)
class Gptq(Packing):
    """`g_idx` says which group a column is in; where that is not its place in order, there are no blocks."""

    zero_offset: int = 1

    def expected(self, rows: int, columns: int) -> dict[str, Expected]:
        groups = self.groups(columns)
        return {
            "qweight": Expected((self.words(columns), rows), INTEGERS),
            "qzeros": Expected((groups, self.words(rows)), INTEGERS),
            "scales": Expected((groups, rows), FLOATS),
            "g_idx": Expected((columns,), INTEGERS, optional=True),
        }

    def stored(self, tensors: Mapping[str, Streamed], rows: int, columns: int) -> Stored:
        qweight, qzeros = tensors["qweight"], tensors["qzeros"]
        scales = cast(tensors["scales"], ir.DataType.FLOAT)

        def codes(start: int, stop: int) -> np.ndarray:
            words = self.turned["qweight"].read(qweight, start, stop)
            return words.astype("<i4", copy=False).view(np.uint8)

        def zero_points(start: int, stop: int) -> np.ndarray:
            per = WORD // self.bits
            words = self.turned["qzeros"].read(qzeros, start // per, -(-stop // per)).view(np.uint32)
            found = spread(words + self._offset, self.bits)[start % per :][: stop - start]
            return self._checked(found, str(qzeros.name))

        def factors(start: int, stop: int) -> np.ndarray:
            return self.turned["scales"].read(scales, start, stop)

        return Stored(codes, factors, zero_points, self._groups_of(tensors.get("g_idx"), columns))

    @cached_property
    def _offset(self) -> np.uint32:
        """What was subtracted from each word of zero points."""
        return np.uint32(sum(self.zero_offset << shift for shift in range(0, WORD, self.bits)))

    def _checked(self, zero_points: np.ndarray, name: str) -> np.ndarray:
        middle = 1 << (self.bits - 1)
        if self.symmetric and (zero_points != middle).any():
            other = int(zero_points[zero_points != middle][0])
            raise CheckpointError(f"tensor '{name}' has a zero point of {other}; 'sym': true means {middle} everywhere")
        return zero_points

    def _groups_of(self, g_idx: Streamed | None, columns: int) -> np.ndarray | None:
        """The group of each column; None where they follow one another."""
        if g_idx is None:
            return None
        groups = g_idx.read(0, columns)
        if strange := [int(group) for group in (groups.min(), groups.max()) if not 0 <= group < self.groups(columns)]:
            raise CheckpointError(f"tensor '{g_idx.name}' names group {strange[0]}; there are {self.groups(columns)}")
        return None if (groups == np.arange(columns) // self.group(columns)).all() else groups


def read_gptq(table: Config) -> Gptq:
    """The format that a `quantization_config` describes; CheckpointError for one that is not read.

    Whether columns are in the order of activations (`desc_act`) is seen in `g_idx`.
    """
    key = "checkpoint_format" if table.get("checkpoint_format") is not None else "format"
    version = table.choice(key, FORMATS, "gptq")
    table.must_be("is_marlin_format", False)
    table.choice("pack_dtype", ["int32"], "int32")
    if not all(pattern.startswith("-:") for pattern in table.table("dynamic").data):
        raise table.error("dynamic", "one format for all packed modules (only patterns '-:...', of those left alone)")
    if table.get("adapter"):
        raise table.error("adapter", "none: what it adds to the weights is not read")
    return Gptq(read_bits(table), read_group_size(table), table.flag("sym", False), zero_offset=FORMATS[version])
