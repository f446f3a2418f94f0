"""plugins, quantize: second moments for a matrix that is the lm_head and the embedding at once.

As the lm_head, an error D of a row costs D H Dᵀ, with H the second moments of what enters it. As the embedding, the row
enters the residual stream, of which we follow the part that goes straight through to the scores ("logit lens"): with g
the gains of the final norm and C the covariance of the rows of the matrix, since what all scores share is no matter,

    D G Dᵀ      G = diag(g) C diag(g)

A row counts for both by how often its token comes, so that one sum of the two serves all rows.
"""

import numpy as np
import onnx_ir as ir

from edgewise.calibration.gram import add_gram, mirror
from edgewise.graph import Roles
from edgewise.tensors import Streamed, streamed

EMBEDDING = np.float32(0.25)  # the part of the embedding, where the lm_head has 1; measured on gradients: 0.17


def with_embedding(head: np.ndarray, matrix: Streamed, gains: np.ndarray) -> np.ndarray:
    """Second moments of the inputs of a tied lm_head, `[columns, columns]`, and what counts for the embedding."""
    through = covariance(matrix) * gains * gains[:, None]
    size = through.diagonal().mean()
    if not size > 0:
        return head
    return np.asarray(head + through * (EMBEDDING * head.diagonal().mean() / size))


def covariance(matrix: Streamed) -> np.ndarray:
    """Of the rows of a matrix, float32 `[columns, columns]`."""
    rows, columns = matrix.dims
    total, squares = np.zeros(columns, np.float64), np.zeros((columns, columns), np.float32)
    for start, stop in matrix.blocks():
        some = matrix.read(start, stop).astype(np.float32, copy=False)
        total += some.sum(axis=0, dtype=np.float64)
        add_gram(squares, some)
    mirror(squares)
    mean = (total / rows).astype(np.float32)
    return squares / np.float32(rows) - np.outer(mean, mean)


def final_gains(model: ir.Model, columns: int) -> np.ndarray:
    """The gains of the norm before the lm_head, float32 `[columns]`; 1 where it has none."""
    norm = Roles.of(model).maybe("norm")
    gains = next((v for v in norm.inputs[1:] if v is not None and v.is_initializer()), None) if norm else None
    if gains is None:
        return np.ones(columns, np.float32)
    return streamed(gains.const_value).numpy().astype(np.float32).reshape(columns)
