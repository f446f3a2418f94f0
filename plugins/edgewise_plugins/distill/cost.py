"""plugins, distill: what learning takes, from shapes alone, for the plan of a build and before it starts."""

from collections.abc import Mapping

import onnx_ir as ir

from edgewise.calibration.plan import FLOAT, Cost, StatisticsPlan, plan_statistics
from edgewise.graph import get_facts, linears
from edgewise.quantized import BlockQuantized
from edgewise.sizes import sizes_of, total
from edgewise_plugins.distill.kept import ROWS, shapes_of_top, size
from edgewise_plugins.distill.plan import DIVERGENCES, Learn, Training

TORCH = 400 << 20  # the library
COPIES = 5  # of a parameter while it is trained: itself, its gradient, two moments, the best so far
STORED = 4  # of these on the disk, for a run that is killed
ROUNDED = 5  # more of one that is quantized, while it is rounded
SCORES = 6  # copies of the scores of a batch
WAYS = 3  # times what a run takes: forward, and back to activations and to weights
KEPT = 1.3  # of what a run computes, with the gradients that are on their way; measured


def costs(
    model: ir.Model, teacher: ir.Model, shape: tuple[int, ...], training: Training, *, prompt: int, what: Learn
) -> Mapping[str, Cost]:
    """What each stage takes, on `shape` (sequences, length), by its name."""
    count, length = shape
    found = {}
    if prompt:
        found["teacher writes"] = _ahead(teacher, shape, disk=8 * count * length)
    if training.top:
        shapes = shapes_of_top(length, training.top, get_facts(teacher).vocab_size)
        found["teacher"] = _ahead(teacher, shape, disk=size(shapes, count))
    return found | {"distill": _learning(model, teacher, shape, training, what)}


def _ahead(teacher: ir.Model, shape: tuple[int, ...], *, disk: int) -> Cost:
    """Of a teacher that works by itself, once through the text."""
    count, length = shape
    plan, facts = plan_statistics(teacher, (min(ROWS, count), length)), get_facts(teacher)
    floats = _parameters(teacher) + SCORES * plan.tokens * facts.vocab_size
    return Cost(TORCH + FLOAT * floats + plan.layer, disk, count * length * _flops(teacher, plan))


def _learning(model: ir.Model, teacher: ir.Model, shape: tuple[int, ...], training: Training, what: Learn) -> Cost:
    batch = min(training.batch, shape[0]), shape[1]
    plan, along = plan_statistics(model, batch), plan_statistics(teacher, batch)
    present, asked = not training.top, training.objective in DIVERGENCES or training.takes_hidden
    quantized = any(isinstance(linear.matrix, BlockQuantized) for linear in linears(model))
    copies = ROUNDED if what == "scales" else COPIES + ROUNDED * quantized
    floats = _parameters(model) * copies + _parameters(teacher) * present
    floats += SCORES * plan.tokens * get_facts(model).vocab_size
    activations = KEPT * plan.tokens * sum(layer.token for layer in plan.layers) + along.layer * present
    tokens = training.steps * training.accumulate * plan.tokens
    return Cost(
        memory=TORCH + FLOAT * floats + int(activations),
        disk=FLOAT * STORED * _parameters(model) * (what == "weights"),
        flops=tokens * (WAYS * _flops(model, plan) + (present and asked) * _flops(teacher, along)),
    )


def _parameters(model: ir.Model) -> int:
    return total(sizes_of(model)).parameters


def _flops(model: ir.Model, plan: StatisticsPlan) -> float:
    """For a token, with its scores."""
    facts = get_facts(model)
    return plan.flops / plan.tokens + 2 * facts.hidden_size * facts.vocab_size
