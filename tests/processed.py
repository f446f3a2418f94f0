"""tests: scores as a processor leaves them, after tokens that come one at a time."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from edgewise.search.protocol import FloatArray, Processor
from tables import Letters

SIZE = 27  # of the vocabulary of letters
LETTERS = Letters()
ENDED = Letters(eos=(9,))
tokens = st.integers(0, 3)  # few, so that they repeat
texts = st.lists(tokens, max_size=40)


def applied(processor: Processor, prompt: Sequence[int], new: Sequence[int], scores: FloatArray) -> FloatArray:
    """The scores after a prompt and new tokens, which come one at a time."""
    state = processor.start(tuple(prompt))
    for token in new:
        state = processor.advance(state, (token,))
    return processor.apply(state, scores.copy())


def random_scores(seed: int) -> FloatArray:
    return np.random.default_rng(seed).normal(0, 3, SIZE).astype(np.float32)
