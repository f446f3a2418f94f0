"""sdk: the format of a matrix that is multiplied as integers: int8 weights, uint8 activations (W8A8)."""

from dataclasses import dataclass

from edgewise.quantized import Format


@dataclass(frozen=True)
class Int8Rows(Format):
    """Codes of 8 bits around 128, one scale for each row of a matrix `[out, in]`: so whole rows are summed in int32.

    The matrix is float to every pass, as all quantized ones are. A lowering that multiplies it as integers quantizes
    the activations too, while the model runs: each token's by a scale of its own.

    >>> str(Int8Rows.of(columns=896))
    'int8, a scale for each row, uint8 activations'
    """

    @classmethod
    def of(cls, *, columns: int) -> "Int8Rows":
        return cls(bits=8, block_size=columns, symmetric=True)

    def __str__(self) -> str:
        return "int8, a scale for each row, uint8 activations"
