"""sdk, search: how long the repetitions are that a sequence of tokens ends with."""

import numpy as np
from numpy.typing import NDArray


def suffixes(tokens: tuple[int, ...]) -> NDArray[np.int32]:
    """For each place but the last, how many tokens up to it are those that the sequence ends with.

    The Z-algorithm, over the tokens in reverse: linear in their number.
    """
    back = tokens[::-1]
    lengths = [0] * len(back)
    left = right = 0  # what was compared furthest: back[left:right] is how it begins
    for i in range(1, len(back)):
        length = min(lengths[i - left], right - i) if i < right else 0
        while i + length < len(back) and back[length] == back[i + length]:
            length += 1
        lengths[i] = length
        if i + length > right:
            left, right = i, i + length
    return np.array(lengths[:0:-1], np.int32)


def grown(lengths: NDArray[np.int32], same: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The lengths after one more token, which is the same as some of those before it, `[tokens before]`."""
    longer = np.ones(len(same), np.int32)
    longer[1:] += lengths
    longer *= same
    return longer
