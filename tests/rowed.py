"""tests: rows of the toy, the texts that they hold, and what each would score alone."""

import numpy as np
from numpy.typing import NDArray

from edgewise.runtime.model import Model
from edgewise.runtime.pool import Pool
from edgewise.runtime.rows import Rows
from edgewise.runtime.session import Session
from edgewise.search.protocol import Extend
from toy import NAN

Floats = NDArray[np.float32]

RANDOM = np.random.default_rng(3)
LENGTHS = (5, 40, 1, 33, 20)
TEXTS = [tuple(RANDOM.integers(0, NAN, length).tolist()) for length in LENGTHS]
NEXT = RANDOM.integers(0, NAN, (20, len(LENGTHS)))


def rows_of(model: Model, texts: list[tuple[int, ...]], capacity: int = 80) -> Rows:
    """Row i holds text i."""
    rows = Rows((model,), capacity=capacity)
    rows.extend([Extend(row, text, None) for row, text in enumerate(texts)])
    return rows


def alone(model: Model, tokens: tuple[int, ...]) -> Floats:
    scores: Floats = Session(model, capacity=len(tokens)).prefill(tokens)[-1]
    return scores


def assert_close(found: Floats, expected: Floats) -> None:
    """Float32 sums in another order; scores here reach 100."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1, float(np.abs(expected).max())))


def the_pool(rows: Rows) -> Pool:
    (pool,) = rows._pools.values()
    return pool
