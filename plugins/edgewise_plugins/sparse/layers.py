"""plugins, sparse: Wanda and SparseGPT over a whole model: later layers see what the earlier ones became."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import cache_folder
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear, linears
from edgewise.passes import calibration_of
from edgewise.tensors import Streamed
from edgewise_plugins.quantize.drift import Drift
from edgewise_plugins.quantize.factor import factorize
from edgewise_plugins.quantize.gptq import Moments
from edgewise_plugins.quantize.observed import TOKENS_PER_FEATURE, observed
from edgewise_plugins.sparse.cost import ELEMENTS
from edgewise_plugins.sparse.pattern import Pattern
from edgewise_plugins.sparse.score import without_lowest
from edgewise_plugins.sparse.sparsegpt import sparsegpt
from edgewise_plugins.sparse.spill import Floats


def wanda_by_layers(model: ir.Model, names: Collection[str], pattern: Pattern) -> None:
    """Replace the matrices by views without the weights that count least on the calibration text."""
    with calibration_of(model, needed_by="method 'wanda'").walk(model) as walk:
        for layer in walk.layers:
            squares = _squares(walk, layer)
            for linear in _of_layer(model, layer, names):
                norms = np.sqrt(squares.get(linear.name, np.float32(1)))  # of an expert that sees no token: all alike
                linear.replace(without_lowest(linear.matrix, norms, pattern))
            walk.advance(layer)


def sparsegpt_by_layers(model: ir.Model, names: Collection[str], pattern: Pattern, *, damping: float) -> None:
    """Replace the matrices by those that SparseGPT makes of them, in a temporary file."""
    calibration = calibration_of(model, needed_by="method 'sparsegpt'")
    floats, store, tokens = model.clone(), Floats(cache_folder()), calibration.sequences.size
    with calibration.walk(model) as walk, calibration.walk(floats) as along:
        along.progress = None
        for layer in walk.layers:
            for group, moments in observed(walk, along, layer, names, damping=damping):
                upper, drift = _factored(moments, tokens, damping)
                for linear in group:
                    blocks = _blocks(linear.matrix, upper, drift, pattern)
                    linear.replace(store.write(linear.matrix.dims, blocks, name=linear.name))
            if along.position == layer:
                along.advance(layer)
            walk.advance(layer)


def _of_layer(model: ir.Model, layer: int, names: Collection[str]) -> list[Linear]:
    return [linear for linear in linears(model) if linear.layer == layer and linear.name in names]


def _squares(walk: Walk, layer: int) -> dict[str, np.ndarray]:
    """Of what enters each matrix of a layer, the sums of squares over the text, `[columns]`."""
    sums: dict[str, np.ndarray] = {}

    def observe(sharing: Sequence[Linear], x: np.ndarray) -> None:
        squares = np.einsum("tk,tk->k", x, x)
        for linear in sharing:
            sums[linear.name] = sums.get(linear.name, 0) + squares

    walk.observe(layer, observe)
    return sums


def _factored(moments: Moments, tokens: int, damping: float) -> tuple[np.ndarray, Drift | None]:
    """The factor of columns in their order, and what is to be made up for.

    With too few tokens for so many inputs they would be fitted to the text: each is taken alone then, and nothing makes
    up for anything.
    """
    gram, drift = moments.gram, moments.drift
    if tokens < TOKENS_PER_FEATURE * len(gram):
        gram, drift = np.diag(gram.diagonal()), None
    return factorize(gram, damping, order=np.arange(len(gram))).upper, drift


def _blocks(matrix: Streamed, upper: np.ndarray, drift: Drift | None, pattern: Pattern) -> Iterator[np.ndarray]:
    """The rows of a matrix, some at a time."""
    rows, columns = matrix.dims
    step = max(1, ELEMENTS // columns)
    for start in range(0, rows, step):
        weights = matrix.read(start, min(start + step, rows)).astype(np.float32)
        yield sparsegpt(drift.made_up_for(weights, start) if drift else weights, upper, pattern)
