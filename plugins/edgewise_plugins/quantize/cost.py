"""plugins, quantize: what GPTQ and AutoRound take, from shapes alone, for the plan of a build."""

from collections.abc import Mapping

import onnx_ir as ir

from edgewise.calibration.plan import FLOAT, Cost, StatisticsPlan, plan_statistics
from edgewise.calibration.stages import BATCH_TOKENS, linears_by_input
from edgewise.graph import get_facts, linears
from edgewise.quantized import Format
from edgewise_plugins.quantize.sequential import ELEMENTS, tied_head

RUNS = 3  # of each layer: to see what enters its matrices, to leave it, and the float model beside
STATES = 3  # of a walk, at a time: before a layer, after it, and those that a killed build would go on from
SQUARES = 4  # as wide as the widest input: its moments, damped, their factor, and the drift
COPIES = 12  # of the rows at hand: three candidates, what is left of their errors, sums
SWEEPS = 40  # multiplications of each weight with a column's moments: two candidates, refined twice

TORCH = 300 << 20
LEARNED = 16  # numbers for each weight: where it moves, and what its derivative needs
GRADIENTS = 3  # times what a run takes: forward, and back to activations and to weights


def gptq_cost(model: ir.Model, forms: Mapping[str, Format], shape: tuple[int, ...]) -> Cost:
    """Of GPTQ on `shape` (sequences, length), of the matrices that `forms` names."""
    plan, hidden = plan_statistics(model, shape), get_facts(model).hidden_size
    chosen = {linear.name: linear.matrix.dims for linear in linears(model) if linear.name in forms}
    inputs = [group[0].matrix.dims[1] for layer in linears_by_input(model).values() for group in layer.values()]
    squares = FLOAT * SQUARES * max(columns for _, columns in chosen.values()) ** 2
    copies = FLOAT * COPIES * min(ELEMENTS, max(rows * columns for rows, columns in chosen.values()))
    spilled = sum(forms[name].stored_bytes(*dims) for name, dims in chosen.items())
    states = STATES + (len(plan.layers) + 1 if tied_head(model, forms) else STATES)  # of ours, of the float model
    sums = sum(plan.tokens * (columns**2 + 2 * columns * hidden) + 2 * columns**3 for columns in inputs)
    sweeps = sum(SWEEPS * rows * columns**2 for rows, columns in chosen.values())
    return Cost(
        memory=plan.memory + plan.layer + squares + copies,
        disk=states * plan.tokens * plan.hidden + spilled,
        flops=RUNS * plan.flops + sums + sweeps,
    )


def learning_cost(model: ir.Model, shape: tuple[int, ...], *, steps: int) -> Cost:
    """Of AutoRound, after that."""
    plan = plan_statistics(model, shape)
    sizes: dict[int | None, int] = {}
    for linear in linears(model):
        sizes[linear.layer] = sizes.get(linear.layer, 0) + linear.matrix.size
    largest = max(size for layer, size in sizes.items() if layer is not None)
    batch = min(BATCH_TOKENS, plan.tokens)
    return Cost(
        memory=plan.memory + TORCH + FLOAT * LEARNED * largest + _activations(plan, batch),
        disk=0,
        flops=steps * batch * GRADIENTS * plan.flops / plan.tokens,
    )


def _activations(plan: StatisticsPlan, batch: int) -> int:
    """What torch keeps of a layer for the way back, and the derivatives."""
    scores = FLOAT * batch * plan.length
    return max(2 * layer.token * batch + 2 * scores * layer.heads for layer in plan.layers)
