"""sdk, quality: sequences as an encoder-decoder is measured on them: the first half is the source, the rest the answer.

What it answers does not matter: as in a decoder, it is given each token of a text and asked for the next one.
"""

import numpy as np
from numpy.typing import NDArray

from edgewise.facts import Facts

Tokens = NDArray[np.int64]


def halves(sequences: Tokens, facts: Facts) -> tuple[Tokens, Tokens]:
    """Sources `[n, half]`, and what a decoder reads, `[n, 1 + rest]`: `start`, and the tokens that it is to foretell.

    Of a decoder without an encoder the sources are empty, `[n, 0]`, and it reads the sequences as they are.
    """
    if facts.source is None:
        return sequences[:, :0], sequences
    half = min(sequences.shape[1] // 2, facts.source.context_length)
    starts = np.full((len(sequences), 1), facts.source.start, np.int64)
    return sequences[:, :half], np.concatenate([starts, sequences[:, half:]], axis=1)
