"""sdk, calibration: second moments X'X: panels on and above the diagonal are computed, and mirrored in the end.

The products are ONNX Runtime's: with panels of 512 they take 0.6 of the processor time of NumPy's symmetric rank-k
update (OpenBLAS) at K = 4,864, and 0.3 at K = 896, where OpenBLAS spends it on threads that wait for each other.
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgewise.graph import IR_VERSION, OPSET

PANEL = 512  # rows of the matrix that are computed at a time


def add_gram(total: np.ndarray, x: np.ndarray) -> None:
    """Add `x.T @ x` to `total`, float32 `[K, K]`, of which only the upper triangle is right until `mirror`."""
    for start in range(0, x.shape[1], PANEL):
        right = np.ascontiguousarray(x[:, start:])
        left = np.ascontiguousarray(right[:, :PANEL])
        total[start : start + PANEL, start:] += product(left, right)


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`left.T @ right`, float32."""
    result: np.ndarray = _session().run(None, {"left": left, "right": right})[0]
    return result


def mirror(total: np.ndarray) -> None:
    """Complete the lower triangle from the upper one, in place."""
    for start in range(0, len(total), PANEL):
        stop = start + PANEL
        total[stop:, start:stop] = total[start:stop, stop:].T


@cache
def _session() -> Any:
    """It multiplies without turning `left`."""
    from edgewise.runtime.ort import open_graph  # not for a plan, which needs the sizes only

    node = helper.make_node("FusedMatMul", ["left", "right"], ["product"], domain="com.microsoft", transA=1)
    values = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, None])
        for name in ("left", "right", "product")
    }
    graph = helper.make_graph([node], "gram", [values["left"], values["right"]], [values["product"]])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gram.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), path)
        return open_graph(path, entries={"session.intra_op.allow_spinning": "0"})
