"""exporters, decoder, packed: tensors whose columns are what we read as rows: an output feature is a column there."""

import numpy as np

from edgewise.quantized import unpack
from edgewise.tensors import Streamed, transpose

CHUNK_BYTES = 16 << 20


class Turned:
    """Reads columns of one tensor after another.

    Every column is spread over the whole tensor, so a chunk of them is read at a time, and the last chunk is kept:
    whoever walks over a matrix in smaller steps finds the next ones there. One chunk is held for all tensors that are
    read with it.
    """

    def __init__(self) -> None:
        self._last: tuple[Streamed, int, np.ndarray] | None = None

    def read(self, tensor: Streamed, start: int, stop: int) -> np.ndarray:
        """Columns start to stop, as rows: `[stop - start, len(tensor)]`."""
        size = max(1, CHUNK_BYTES * tensor.dims[1] // max(1, tensor.nbytes))
        pieces = []
        for index in range(start // size, -(-stop // size)):
            low = index * size
            chunk = self._chunk(tensor, low, min(low + size, tensor.dims[1]))
            pieces.append(chunk[max(start - low, 0) : stop - low])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _chunk(self, tensor: Streamed, start: int, stop: int) -> np.ndarray:
        last = self._last
        if last is not None and last[0] is tensor and last[1] == start:
            return last[2]
        self._last = last = None  # or that chunk is held while the next one is read
        chunk = transpose(tensor).read(start, stop)
        self._last = (tensor, start, chunk)
        return chunk


def spread(words: np.ndarray, bits: int, order: list[int] | None = None) -> np.ndarray:
    """Codes of words that each hold one column of several rows: int32 `[words, columns]` to uint8
    `[words * 32 / bits, columns]`. `order` says which code of a word, from the low bits on, each row has."""
    count, columns = words.shape
    octets = np.ascontiguousarray(words).astype("<i4", copy=False).view(np.uint8).reshape(count, columns, 4)
    codes = unpack(octets, bits)
    if order is not None:
        codes = codes[:, :, order]
    return np.ascontiguousarray(codes.transpose(0, 2, 1)).reshape(-1, columns)
