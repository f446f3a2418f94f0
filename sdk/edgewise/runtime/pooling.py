"""sdk, runtime: hidden states of the tokens of a text as one vector, as sentence-transformers pools them."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pool = Callable[[Floats, NDArray[np.int64]], Floats]


def mean(hidden: Floats, mask: NDArray[np.int64]) -> Floats:
    """Of all tokens, special ones too. hidden: `[batch, sequence, width]`; mask: `[batch, sequence]`, 0 for padding."""
    weights = mask.astype(np.float32)[:, None, :]  # [batch, 1, sequence]
    summed: Floats = (weights @ hidden)[:, 0]
    mean: Floats = summed / weights.sum(axis=2)
    return mean


def cls(hidden: Floats, mask: NDArray[np.int64]) -> Floats:
    """The first token."""
    first: Floats = hidden[:, 0]
    return first


def last(hidden: Floats, mask: NDArray[np.int64]) -> Floats:
    """The last token that is no padding."""
    ends: Floats = hidden[np.arange(len(hidden)), mask.sum(axis=1) - 1]
    return ends


POOLINGS: Mapping[str, Pool] = {"mean": mean, "cls": cls, "last": last}


def normalized(vectors: Floats) -> Floats:
    """Vectors `[batch, width]` of length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = vectors / np.maximum(lengths, np.float32(1e-12))
    return scaled
