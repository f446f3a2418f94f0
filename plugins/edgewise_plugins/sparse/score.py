"""plugins, sparse: weights that count least: by their size, or by that and the size of their inputs (Wanda).

Wanda (arXiv 2306.11695): a weight counts as |w| times the norm of its input, beside those of its row. With all norms
the same it is magnitude.
"""

import numpy as np

from edgewise.tensors import Streamed, map_rows
from edgewise_plugins.sparse.pattern import Pattern


def without_lowest(matrix: Streamed, norms: np.ndarray | np.float32, pattern: Pattern) -> Streamed:
    """A view of a matrix without those of its weights that count least; `norms` of its inputs, `[columns]`."""

    def cut(rows: np.ndarray) -> np.ndarray:
        return np.where(pattern.lowest(np.abs(rows) * norms), rows.dtype.type(0), rows)

    return map_rows(matrix, cut)
