"""plugins, prune: a matrix between the final norm and an lm_head that is the embedding, so that it may stay that.

The embedding E gives scores E x. When E has fewer columns, E_S, no columns of its own can be fitted for the head; but a
matrix of as many rows and columns as E_S has columns, in front of it, can: where x is told by x' as B x', it is

    (E_Sᵀ E_S)⁻¹ E_Sᵀ E B

the best for what E_S gives. It is a fraction of the head, which has a row for each token of the vocabulary.
"""

import numpy as np
import onnx_ir as ir

from edgewise.calibration.gram import product
from edgewise.graph import Roles, get_facts, mark
from edgewise.tensors import Streamed, constant
from edgewise_plugins.rotate import TURN


def insert_turn(model: ir.Model) -> None:
    """Put the identity there, where the lm_head is tied."""
    roles = Roles.of(model)
    if roles.maybe("lm_head.weight") is None or roles.maybe(TURN):
        return
    head, norm, name, width = roles.one("lm_head"), roles.one("norm"), f"{TURN}.weight", get_facts(model).hidden_size
    entering = norm.outputs[0]
    weight = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape([width, width]),
        const_value=constant(np.eye(width, dtype=np.float32), name=name),
    )
    model.graph.register_initializer(weight)
    node = mark(ir.node("MatMul", [entering, weight], name=TURN), TURN)
    turned = node.outputs[0]
    turned.name, turned.shape, turned.type = TURN, entering.shape, entering.type
    head.replace_input_with(0, turned)
    head.prepend(node)


def onto(table: Streamed, left: np.ndarray, *, damping: float) -> np.ndarray:
    """(E_Sᵀ E_S)⁻¹ E_Sᵀ E, `[channels left, all]`, damped: each channel that is left stays what it is."""
    between = np.zeros((len(left), table.dims[1]))
    for block in table.walk():
        rows = block.astype(np.float32)
        between += product(np.ascontiguousarray(rows[:, left]), rows)
    ours = between[:, left]
    added = damping * (float(ours.diagonal().mean()) or 1.0)
    between[np.arange(len(left)), left] += added
    return np.asarray(np.linalg.solve(ours + added * np.eye(len(left)), between))
