"""sdk, quality: what one change alone costs: the KL divergence of a model that is float but for that change.

A change is a set of weights to put in the place of float ones: one quantized matrix, or all that a layer holds. The
float model is walked once, and each change branches off at the first layer that it touches: what comes before that
is not computed again. One layer's weights are in memory at a time; the float scores are on disk.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.calibration.hidden import Hidden
from edgewise.calibration.walk import LOGIT_TOKENS, Walk
from edgewise.errors import GraphError
from edgewise.graph import get_facts, layer, role
from edgewise.quality.compare import measured
from edgewise.quality.divergence import Divergences, divergences
from edgewise.tensors import Streamed
from edgewise.writer import Progress

Change = Mapping[str, Streamed]  # by the name of the initializer, in its shape: [in, out] for a MatMul

AFTER_LAYERS = ("norm", "lm_head", "lm_head.weight", "logits")


def sensitivity(
    model: ir.Model,
    changes: Mapping[str, Change],
    sequences: np.ndarray,
    *,
    context: int | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """What each change alone does to a float model: the mean KL divergence, in nats per token, by its name.

    >>> matrices = {linear.name: transpose(quantized(linear.matrix)) for linear in linears(model)}
    >>> sensitivity(model, {name: {name: matrix} for name, matrix in matrices.items()}, sequences)

    sequences: int64 `[n, length]`; a few hundred tokens rank the weights of a model. context: of the session that is
    to run it. The model is left as it was. Each change costs the layers from the first that it touches, and the
    lm_head, on all tokens. Raises GraphError for a weight that the graph does not have.
    """
    starts = _starts(model)
    for change in changes.values():
        _check(model, change)
    with scratch() as folder:
        floats = _walk_float(model, sequences, folder, context)
        found = {}
        for number, (name, change) in enumerate(changes.items(), start=1):
            start = min((starts[weight] for weight in change), default=get_facts(model).layers)
            with _applied(model, change), tempfile.TemporaryDirectory(dir=folder) as branch:
                logits = _branch(model, sequences, start, folder, Path(branch), context)
                parts = list(measured([_rows(floats), logits], sequences, divergences))
            found[name] = float(Divergences.join(parts).kld.mean())
            if progress:
                progress("sensitivity", number, len(changes))
    return found


def _walk_float(model: ir.Model, sequences: np.ndarray, folder: Path, context: int | None) -> Hidden:
    """Leaves what enters each layer in the folder, as `input.{layer}`; the scores of all tokens, on disk."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        walk = Walk(model, sequences, folder=Path(own), context=context)
        for step in walk.layers:
            walk.advance(step)
            shutil.copyfile(walk.hidden.path, _input(folder, step + 1))
        scores = Hidden(folder / "scores", (sequences.size, get_facts(model).vocab_size))
        scores.write(walk.logits())
    return scores


def _branch(
    model: ir.Model, sequences: np.ndarray, start: int, folder: Path, own: Path, context: int | None
) -> Iterator[np.ndarray]:
    """The scores of a model that is the float one up to layer `start`."""
    if start:
        shutil.copyfile(_input(folder, start), own / f"hidden.{start}")
    walk = Walk(model, sequences, folder=own, context=context, start=start)
    for step in walk.layers[start:]:
        walk.advance(step)
    yield from walk.logits()


def _input(folder: Path, step: int) -> Path:
    return folder / f"input.{step}"


def _rows(scores: Hidden) -> Iterator[np.ndarray]:
    for start in range(0, scores.shape[0], LOGIT_TOKENS):
        yield scores.read(start, min(start + LOGIT_TOKENS, scores.shape[0]))


def _starts(model: ir.Model) -> dict[str, int]:
    """The first step of a walk that reads each initializer: a layer, or the head; 0 for the embedding."""
    starts: dict[str, int] = {}
    head = get_facts(model).layers
    for node in model.graph:
        number = layer(node)
        step = number if number is not None else head if role(node) in AFTER_LAYERS else 0
        for value in node.inputs:
            if value is not None and value.is_initializer():
                name = str(value.name)
                starts[name] = min(step, starts.get(name, step))
    return starts


def _check(model: ir.Model, change: Change) -> None:
    for name, tensor in change.items():
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None:
            raise GraphError(f"the graph has no weight '{name}' to change")
        if list(tensor.dims) != (shape := list(value.const_value.shape.numpy())):
            raise GraphError(f"weight '{name}' has the shape {shape}; its change has {list(tensor.dims)}")


@contextmanager
def _applied(model: ir.Model, change: Change) -> Iterator[None]:
    """The model with some other weights, for as long as the block lasts."""
    values = [model.graph.initializers[name] for name in change]
    before = [value.const_value for value in values]
    for value, tensor in zip(values, change.values(), strict=True):
        value.const_value = tensor
    try:
        yield
    finally:
        for value, old in zip(values, before, strict=True):
            value.const_value = old
