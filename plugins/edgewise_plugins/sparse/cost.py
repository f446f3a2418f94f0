"""plugins, sparse: what SparseGPT takes, from shapes alone, for the plan of a build."""

from collections.abc import Collection

import onnx_ir as ir

from edgewise.calibration.plan import FLOAT, Cost, plan_statistics
from edgewise.calibration.stages import linears_by_input
from edgewise.graph import get_facts, linears

ELEMENTS = 1 << 22  # weights at a time: 16 MiB of float32, and some copies
RUNS = 3  # of each layer: to see what enters its matrices, to leave it, and the float model beside
STATES = 6  # of two walks: before a layer, after it, and those that a killed build would go on from
SQUARES = 5  # as wide as the widest input: its moments, damped, two factors, and the drift
COPIES = 10  # of the rows at hand: as they were, in the order of columns, losses, their order, errors
SWEEPS = 4  # operations of each weight with a column


def sparsegpt_cost(model: ir.Model, names: Collection[str], shape: tuple[int, int]) -> Cost:
    """Of SparseGPT on `shape` (sequences, length), of the matrices that are named."""
    plan, hidden = plan_statistics(model, shape), get_facts(model).hidden_size
    sizes = [linear.matrix.dims for linear in linears(model) if linear.name in names]
    inputs = [group[0].matrix.dims[1] for layer in linears_by_input(model).values() for group in layer.values()]
    squares = SQUARES * max(columns for _, columns in sizes) ** 2
    copies = COPIES * min(ELEMENTS, max(rows * columns for rows, columns in sizes))
    sums = sum(plan.tokens * (columns**2 + 2 * columns * hidden) + 2 * columns**3 for columns in inputs)
    return Cost(
        memory=plan.memory + plan.layer + FLOAT * (squares + copies),
        disk=STATES * plan.tokens * plan.hidden + FLOAT * sum(rows * columns for rows, columns in sizes),
        flops=RUNS * plan.flops + sums + sum(SWEEPS * rows * columns**2 for rows, columns in sizes),
    )
