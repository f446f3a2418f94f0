"""plugins, sparse: SparseGPT (arXiv 2301.00774): weights are set to zero one column after the other, and those that
come after make up for each of them.

With U of `quantize.factor`, columns in their order: a weight that is not set to zero stays as it is when its turn
comes, and for one that is, by the optimal brain surgeon's rule,

    e[j] = w[j] / U[j, j]      w[i] -= U[j, i] * e[j]  for the columns i after j      loss = e[j]²

So these losses say which weights go: before each batch of columns those with the lowest of all that are left, of all
rows and columns, as many as have still to go (the paper has the same share of each batch: a tenth more error on our
demo); of four inputs of a 2:4 pattern, two of each row, when their turn comes.
"""

import numpy as np

from edgewise_plugins.sparse.pattern import GROUP, Pattern, lowest

BATCH = 128  # columns between matrix products


def sparsegpt(weights: np.ndarray, upper: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Weights `[rows, columns]` with zeros, and with what the others become; `upper` is of columns in their order."""
    turned = np.ascontiguousarray(weights.T)  # [columns, rows]
    columns, left = len(turned), pattern.zeros(weights.size)
    for first in range(0, columns, BATCH):
        some = slice(first, min(first + BATCH, columns))
        zeros = None if pattern.fours else _choose(turned[first:], upper.diagonal()[first:], left)[:BATCH]
        errors = _eliminate(turned[some], upper[some, some], zeros, pattern)
        if zeros is not None:
            left -= int(zeros.sum())
        turned[some.stop :] -= upper[some, some.stop :].T @ errors
    return np.ascontiguousarray(turned.T)


def _choose(turned: np.ndarray, diagonal: np.ndarray, count: int) -> np.ndarray:
    """Of the columns that are left, the `count` weights with the lowest loss: bool `[columns, rows]`."""
    losses = np.abs(turned) / diagonal[:, None]
    return lowest(losses.reshape(-1), count).reshape(turned.shape)


def _eliminate(batch: np.ndarray, upper: np.ndarray, zeros: np.ndarray | None, pattern: Pattern) -> np.ndarray:
    """Go through some columns `[columns, rows]`, which are written; the errors that those after them make up for."""
    errors = np.zeros_like(batch)
    chosen = np.zeros(batch.shape, bool) if zeros is None else zeros
    for j, weight in enumerate(batch):
        if zeros is None and j % GROUP == 0:
            four = slice(j, j + GROUP)
            chosen[four] = pattern.lowest((np.abs(batch[four]) / upper.diagonal()[four, None]).T).T
        np.divide(weight, upper[j, j], out=errors[j], where=chosen[j])
        weight[chosen[j]] = 0
        batch[j + 1 :] -= upper[j, j + 1 :, None] * errors[j]
    return errors
