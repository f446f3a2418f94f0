"""plugins: random rotations that spread every channel over all of them.

    turn = signs * kron(hartley(odd), sylvester(power of two)) / sqrt(size)

Sylvester's matrices have entries 1 and -1, and exist for powers of two. For the odd rest of a size, as 7 of 896, the
Hartley matrix, cos + sin of 2 pi i j / odd, is orthogonal too, and its entries are nearly as even.
"""

import numpy as np


def random_rotation(size: int, seed: int) -> np.ndarray:
    """An orthogonal matrix, float32 `[size, size]`; the same for the same seed."""
    power = size & -size  # the largest power of two that divides it
    turn = np.kron(hartley(size // power), sylvester(power)) / np.sqrt(size)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size)
    return np.asarray(signs[:, None] * turn, np.float32)


def sylvester(size: int) -> np.ndarray:
    """The Hadamard matrix of a power of two, by doubling."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def hartley(size: int) -> np.ndarray:
    angles = 2 * np.pi * (np.outer(np.arange(size), np.arange(size)) % size) / size
    return np.asarray(np.cos(angles) + np.sin(angles))
