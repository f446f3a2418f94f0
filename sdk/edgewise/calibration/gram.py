"""sdk, calibration: second moments X'X: only the blocks on and above the diagonal are computed, then mirrored.

NumPy gives `a.T @ a` to a symmetric rank-k update, at half the operations of a product.
"""

import numpy as np

PANEL = 2048  # rows of the matrix that are computed at a time


def add_gram(total: np.ndarray, x: np.ndarray) -> None:
    """Add `x.T @ x` to `total`, float32 `[K, K]`, of which only the upper triangle is right until `mirror`."""
    for start in range(0, x.shape[1], PANEL):
        rows, rest = x[:, start : start + PANEL], x[:, start + PANEL :]
        band = total[start : start + PANEL]
        band[:, start : start + PANEL] += rows.T @ rows
        band[:, start + PANEL :] += rows.T @ rest


def mirror(total: np.ndarray) -> None:
    """Complete the lower triangle from the upper one, in place."""
    for start in range(0, len(total), PANEL):
        stop = start + PANEL
        total[stop:, start:stop] = total[start:stop, stop:].T
