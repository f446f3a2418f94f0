"""sdk, planner: the format of a matrix: its bytes on the disk, and in memory as a processor's kernels keep it."""

from dataclasses import dataclass

BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "float8": 8, "int8": 8, "int4": 4, "float4": 4, "int2": 2}
SUM = 4  # bytes of a block's sum, which kernels for few bits keep beside its scale in float32


@dataclass(frozen=True)
class Weights:
    """How a matrix is stored.

    >>> str(Weights("int4", block=128)), str(Weights("int8", block=0)), str(Weights("float32"))
    ('int4 block 128', 'int8 rows', 'float32')
    """

    dtype: str
    block: int | None = None  # columns that share a scale; 0: all of a row; None: there are no scales
    zero_points: bool = False
    scale: int = 4  # bytes of a scale

    def __str__(self) -> str:
        """The kind of product, as `Hardware.kernels` names it."""
        if self.block is None:
            return self.dtype
        return f"{self.dtype} block {self.block}" if self.block else f"{self.dtype} rows"

    @property
    def bits(self) -> int:
        return BITS[self.dtype]

    def stored(self, rows: int, columns: int) -> int:
        """Bytes of a matrix on the disk: codes, scales, zero points."""
        return self.codes(rows, columns) + self.sides(rows, columns)

    def packed(self, rows: int, columns: int) -> int:
        """Bytes that ONNX Runtime's processor kernels keep in place of the codes: with scales and sums in float32."""
        if not self.block:
            return self.codes(rows, columns)
        return self.codes(rows, columns) + rows * self._blocks(columns) * (4 + SUM)

    def codes(self, rows: int, columns: int) -> int:
        """Bytes of the numbers themselves; the last block of a row is filled up."""
        return rows * (self.padded(columns) * self.bits // 8)

    def padded(self, columns: int) -> int:
        """Columns with those that fill up the last block."""
        return self._blocks(columns) * self.block if self.block else columns

    def sides(self, rows: int, columns: int) -> int:
        """Bytes of scales and zero points."""
        if self.block is None:
            return 0
        count = self._blocks(columns)
        return rows * (count * self.scale + (-(-count * self.bits // 8) if self.zero_points else 0))

    def _blocks(self, columns: int) -> int:
        return -(-columns // self.block) if self.block else 1
