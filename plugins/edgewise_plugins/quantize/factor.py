"""plugins, quantize: the factor that GPTQ compensates errors with (arXiv 2210.17323, section 3.3, step 3).

For the second moments H of a matrix's inputs, damped, and columns in the order they are to be rounded in, this is the
upper triangular U with U'U = inverse(H). With J the reversal of the order, U = J inverse(cholesky(J H J)) J: one
Cholesky decomposition and one triangular inverse, where inverting H and decomposing the inverse takes twice the work.
"""

from dataclasses import dataclass

import numpy as np

from edgewise.errors import GraphError

LARGEST = 10  # times the mean of the diagonal: no damping above that is tried
BASE = 128  # a triangle of this size is inverted as it is


@dataclass(frozen=True)
class Factor:
    """Columns in the order of rounding, `[columns]`, and `upper`, float32 `[columns, columns]`, in that order.

    added: to the diagonal of the second moments, before they were factored.
    """

    order: np.ndarray
    upper: np.ndarray
    added: np.float32

    def damped(self, gram: np.ndarray) -> np.ndarray:
        """The second moments that were factored."""
        damped = gram.copy()
        damped[np.diag_indices_from(damped)] += self.added
        return damped

    def solve(self, matrix: np.ndarray) -> np.ndarray:
        """`matrix @ inverse(H)`, of damped second moments H: `[rows, columns]`."""
        solved = np.empty_like(matrix)
        solved[:, self.order] = matrix[:, self.order] @ self.upper.T @ self.upper
        return solved


def factorize(gram: np.ndarray, damping: float, *, order: np.ndarray | None = None) -> Factor:
    """The factor of second moments, float32 `[columns, columns]`, in an order; by default the largest come first.

    `damping` times the mean of the diagonal is added to it; ten times more as long as float32 does not suffice.
    """
    diagonal = gram.diagonal()
    order = np.argsort(-diagonal, kind="stable") if order is None else order
    mean = float(diagonal.mean(dtype=np.float64)) or 1.0  # inputs that are all zero: nothing to compensate
    share = damping
    while share <= LARGEST:
        added = np.float32(share * mean)
        lower = _inverse_of_cholesky(gram, order[::-1], added)
        if lower is not None:
            return Factor(order, np.ascontiguousarray(lower[::-1, ::-1]), added)
        share *= 10
    raise GraphError(f"the second moments of {len(gram)} inputs are not positive definite, even damped by {LARGEST}")


def _inverse_of_cholesky(gram: np.ndarray, order: np.ndarray, added: np.float32) -> np.ndarray | None:
    damped = gram[np.ix_(order, order)]
    damped[np.diag_indices_from(damped)] += added
    try:
        lower = np.linalg.cholesky(damped)
    except np.linalg.LinAlgError:
        return None
    invert_triangle(lower)
    return lower if np.isfinite(lower).all() else None


def invert_triangle(lower: np.ndarray) -> None:
    """Invert a lower triangular matrix in place, by halves: nearly all of it is matrix products."""
    size = len(lower)
    if size <= BASE:
        lower[:] = np.tril(np.linalg.inv(lower))
        return
    half = size // 2
    first, corner, last = lower[:half, :half], lower[half:, :half], lower[half:, half:]
    invert_triangle(first)
    invert_triangle(last)
    corner[:] = -(last @ (corner @ first))
