"""tests: models that have nothing to measure in places: every pass takes them, and what it gives is finite and near."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import tiny
from canonical import calibrated, graph, logits, tokens
from cases import CASES
from edgewise.graph import Roles, linears
from edgewise.passes import Pass
from edgewise.tensors import constant, map_rows, streamed
from edgewise_plugins.accuracy_level import AccuracyLevel
from edgewise_plugins.awq import Awq
from edgewise_plugins.cache import QuantizeCache
from edgewise_plugins.mix import Mix
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.rotate import Rotate
from edgewise_plugins.smooth import SmoothQuant
from edgewise_plugins.w8a8 import W8A8

TEXT = tokens(12, 64)
LAYER, CHANNEL = 1, 5


def zero_layer(model: ir.Model) -> None:
    """All matrices of a layer are zeros, and so is what enters its last ones."""
    for linear in linears(model):
        if linear.layer == LAYER:
            linear.replace(map_rows(linear.matrix, np.zeros_like))


def zero_inputs(model: ir.Model) -> None:
    """What enters the matrices of a block is zero for every token."""
    gain = Roles.of(model).one("mlp.norm", LAYER).inputs[1]
    assert gain is not None
    gain.const_value = constant(np.zeros_like(streamed(gain.const_value).numpy()), name=gain.name)


def constant_channel(model: ir.Model) -> None:
    """A channel of the residual stream is the same for all tokens, and very large, as massive activations are."""
    for linear in linears(model):
        if linear.role == "embedding":
            linear.replace(map_rows(linear.matrix, _massive))
        elif linear.role in ("attention.o", "mlp.down"):
            weights = linear.matrix.numpy().copy()
            weights[CHANNEL] = 0
            linear.replace(constant(weights, name=linear.name))


def _massive(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[:, CHANNEL] = 30
    return rows


def constant_weights(model: ir.Model) -> None:
    """Every weight of a matrix is the same."""
    for linear in linears(model):
        if linear.layer == LAYER and linear.role in ("attention.v", "mlp.up"):
            linear.replace(map_rows(linear.matrix, lambda rows: np.full_like(rows, 0.02)))


STEPS: dict[str, Callable[[], tuple[Pass, ...]]] = {
    **{
        method: lambda method=method: (Quantize(bits=8, block_size=32, method=method, steps=2),)  # type: ignore[misc]
        for method in ("nearest", "grid", "hqq", "gptq", "autoround")
    },
    "awq": lambda: (Awq(bits=8, block_size=32), Quantize(bits=8, block_size=32)),
    "smoothquant": lambda: (SmoothQuant(), W8A8(), AccuracyLevel()),
    "rotate": lambda: (Rotate(), Quantize(bits=8, block_size=32, method="gptq")),
    "cache": lambda: (QuantizeCache(),),
    "mix": lambda: (Mix(max_mean_kld=5e-4, block_size=32),),
}


@pytest.mark.parametrize("spoil", [zero_layer, zero_inputs, constant_weights, constant_channel])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_a_pass_takes_a_model_with_nothing_to_measure_in_places(
    steps: Callable[[], tuple[Pass, ...]], spoil: Callable[[ir.Model], None], tmp_path: Path
) -> None:
    case = CASES["llama"]
    model = calibrated(graph(tiny.checkpoint(case.family, tmp_path, **case.overrides)), TEXT)
    spoil(model)
    expected = logits(model, TEXT[:2])
    for step in steps():
        step(model)
    found = logits(model, TEXT[:2])
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
