"""plugins, moe: a comparison between the router and the gates, in the graph: gates far below the largest become 0.

With v the gates of the active experts of a token, before they are normalized

    kept = v where v >= threshold * max(v), 0 elsewhere

Each layer has a threshold, `{router}.threshold`, float32 [1]. At 0 nothing is skipped; below 1 the largest never is.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgewise.calibration.walk import Values, Walk
from edgewise.errors import GraphError
from edgewise.graph import Roles
from edgewise.tensors import Streamed, constant
from edgewise_plugins.moe.insert import Insert

ROLE = "router.kept"


def skip_below(model: ir.Model, thresholds: Mapping[int, float]) -> None:
    """Put the comparison into these layers. Raises GraphError for one that has it."""
    roles = Roles.of(model)
    for number, threshold in thresholds.items():
        if roles.maybe(ROLE, number):
            raise GraphError(f"layer {number} skips experts already: one 'skip-experts' does it")
        _compare(model, _gates(roles, number), number, threshold)


def threshold_name(roles: Roles, number: int) -> str:
    """The initializer that holds a layer's threshold."""
    return f"{_gates(roles, number).name}.threshold"


def set_threshold(model: ir.Model, number: int, threshold: float) -> None:
    value = model.graph.initializers[threshold_name(Roles.of(model), number)]
    value.const_value = as_tensor(threshold)


def as_tensor(threshold: float) -> Streamed:
    return constant(np.array([threshold], np.float32))


def gates_of_chosen(walk: Walk) -> dict[int, np.ndarray]:
    """Of each mixture, on the walk's text: the gates of the active experts, skipped ones too, `[tokens, active]`."""
    roles, found = Roles.of(walk.model), {}
    for number in walk.layers:
        if number not in walk.routing:
            walk.advance(number)
            continue
        name = str(_gates(roles, number).outputs[0].name)
        parts: list[np.ndarray] = []

        def watch(values: Values, name: str = name, parts: list[np.ndarray] = parts) -> None:
            parts.append(values[name].reshape(-1, values[name].shape[-1]))

        walk.advance(number, watch=[name], watcher=watch)
        found[number] = np.concatenate(parts)
    return found


def skipped(gates: np.ndarray, threshold: float) -> float:
    """Experts that a token is spared, on average, of gates `[tokens, active]`."""
    return float((gates < np.float32(threshold) * gates.max(axis=1, keepdims=True)).sum(axis=1).mean())


def _gates(roles: Roles, number: int) -> ir.Node:
    """What gives the gates of the active experts, before they are normalized."""
    return roles.maybe("router.chosen", number) or roles.one("router.top", number)


def _compare(model: ir.Model, node: ir.Node, number: int, threshold: float) -> None:
    gates = node.outputs[0]
    assert gates.shape is not None
    users, some, one = list(gates.uses()), gates.shape.dims, (*gates.shape.dims[:-1], 1)
    insert = Insert(model, node, number, str(node.name))
    share = insert.weight(f"{node.name}.threshold", as_tensor(threshold))
    largest = insert.op(ROLE, "ReduceMax", gates, insert.integers(-1), name="largest", shape=one)
    limit = insert.op(ROLE, "Mul", largest, share, name="limit", shape=one)
    less = insert.op(ROLE, "Less", gates, limit, name="less", shape=some, dtype=ir.DataType.BOOL)
    zero = insert.weight(f"{node.name}.zero", as_tensor(0))
    kept = insert.op(ROLE, "Where", less, zero, gates, name="kept", shape=some)
    for user, position in users:
        user.replace_input_with(position, kept)
