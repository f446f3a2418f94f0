"""exporters, decoder, packed: what a packed format is: the tensors of a module, and how a matrix is in them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgewise.options import known
from edgewise.tensors import Streamed
from edgewise_exporters.decoder.config import Config
from edgewise_exporters.decoder.packed.turned import Turned

FLOATS = (ir.DataType.BFLOAT16, ir.DataType.FLOAT16, ir.DataType.FLOAT)
INTEGERS = (ir.DataType.INT32,)
WORD = 32  # bits of the integers that hold codes

Rows = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Expected:
    """A tensor that a packed module has."""

    shape: tuple[int, ...]
    dtypes: tuple[ir.DataType, ...]
    optional: bool = False


@dataclass(frozen=True)
class Stored:
    """A packed matrix `[out, in]`, by ranges of its rows.

    codes: uint8 `[rows, bytes]`, low bits first, at least as many as there are columns.
    scales: float32 `[rows, groups]`. zero_points: uint8 `[rows, groups]`, one a byte.
    groups: the group of each column where that is not in order, `[columns]`.
    """

    codes: Rows
    scales: Rows
    zero_points: Rows
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class Packing(ABC):
    """A format in which checkpoints hold the weights of linear modules."""

    bits: int
    group_size: int  # columns that share a scale; -1: all of a row
    symmetric: bool = False
    turned: Mapping[str, Turned] = field(
        default_factory=lambda: {part: Turned() for part in ("qweight", "qzeros", "scales")}, compare=False, repr=False
    )

    @abstractmethod
    def expected(self, rows: int, columns: int) -> dict[str, Expected]:
        """The tensors of a module, by the last part of their names."""

    @abstractmethod
    def stored(self, tensors: Mapping[str, Streamed], rows: int, columns: int) -> Stored:
        """A matrix in its tensors."""

    def group(self, columns: int) -> int:
        """Columns that share a scale."""
        return columns if self.group_size == -1 else self.group_size

    def groups(self, columns: int) -> int:
        return -(-columns // self.group(columns))

    def words(self, count: int) -> int:
        """Integers that hold so many codes."""
        return -(-count * self.bits // WORD)


def read_bits(table: Config, expected: Sequence[int] = (2, 4, 8)) -> int:
    """Bits of a code, as a `quantization_config` says."""
    bits = table.integer("bits")
    if bits not in expected:
        raise table.error("bits", known(map(str, expected)))
    return bits


def read_group_size(table: Config) -> int:
    """Columns that share a scale, as a `quantization_config` says; -1: all of a row."""
    size = table.integer("group_size", 128, least=-1)
    if size == 0:
        raise table.error("group_size", "columns that share a scale, or -1: all of a row")
    return size
