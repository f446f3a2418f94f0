"""exporters, decoder, packed: MXFP4 (OCP Microscaling Formats, 1.0): blocks of 32 that share a power of two.

    blocks  uint8 [..., rows, columns / 32, 16]   two codes a byte, the earlier one in the lower bits
    scales  uint8 [..., rows, columns / 32]       the exponent, plus 127
    weight = value of the code * 2 ** exponent

No kernel of a processor reads it. It becomes floats, a range of rows at a time; a quantize step rounds them again.
"""

import numpy as np
import onnx_ir as ir

from edgewise.sizes import CHECKPOINT_BYTES
from edgewise.tensors import Streamed

BLOCK, BYTES = 32, 16
BIAS = 127
CODES = (ir.DataType.UINT8,)
VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def blocks_of(columns: int) -> int:
    return -(-columns // BLOCK)


def unpacked(blocks: Streamed, scales: Streamed, number: int, rows: slice, columns: int) -> Streamed:
    """Some rows of one matrix of a stack of them, in float32."""
    count = len(range(blocks.dims[1])[rows])

    def read(start: int, stop: int) -> np.ndarray:
        pairs = blocks.read(number, number + 1)[0, rows][start:stop]  # [rows, blocks, 16]
        exponents = scales.read(number, number + 1)[0, rows][start:stop].astype(np.int32) - BIAS
        codes = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(*pairs.shape[:2], BLOCK)
        weights = np.ldexp(VALUES[codes], exponents[..., None])
        return np.asarray(weights.reshape(stop - start, -1)[:, :columns])

    storage = ("mxfp4", number, rows.start, blocks.storage, scales.storage)
    matrix = Streamed((count, columns), ir.DataType.FLOAT, read, storage=storage)
    matrix.meta[CHECKPOINT_BYTES] = count * blocks_of(columns) * (BYTES + 1)
    return matrix
