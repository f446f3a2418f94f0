"""sdk, quality: what one change alone costs: the KL divergence of a model that is float but for that change.

A change is a set of weights to put in the place of float ones: one quantized matrix, or all that a layer holds. The
float model is walked once, and each change branches off at the layer that it touches: what comes before that is not
computed again. Changes of one layer each go on together, so that the weights of the layers after them are read once.
One layer's weights are in memory at a time; hidden states and the float scores are on disk.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import scratch
from edgewise.calibration.hidden import Hidden
from edgewise.calibration.plan import FLOAT, Cost, plan_statistics
from edgewise.calibration.walk import LOGIT_TOKENS, Walk
from edgewise.errors import GraphError
from edgewise.graph import get_facts, layer, role
from edgewise.quality.compare import measured
from edgewise.quality.divergence import divergences
from edgewise.tensors import Streamed
from edgewise.writer import Progress

Change = Mapping[str, Streamed]  # by the name of the initializer, in its shape: [in, out] for a MatMul

EMBEDDING = -1  # a step before the first layer
LOGIT_COPIES = 3  # of scores that are compared
AFTER_LAYERS = ("norm", "lm_head.turn", "lm_head", "lm_head.weight", "logits")


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
    for change in changes.values():
        _check(model, change)
    reads, head = _reads(model), get_facts(model).layers
    steps = {name: set[int]().union(*(reads[weight] for weight in change)) for name, change in changes.items()}
    starts = {name: max(0, min(read, default=head)) for name, read in steps.items()}
    layers = {name: (start, changes[name]) for name, start in starts.items() if steps[name] == {start} != {head}}
    work = _Work(sum(head + 1 - start for start in starts.values()), progress)
    with scratch() as folder:
        run = _Run(model, sequences, folder, context, work)
        found = run.together(layers)
        for name, change in changes.items():
            if name not in found:
                found[name] = run.alone(starts[name], change)
    return {name: found[name] for name in changes}


def sensitivity_cost(model: ir.Model, changes: int, shape: tuple[int, int]) -> Cost:
    """What that takes for so many changes of one layer each, on `shape` (sequences, length), from shapes alone."""
    plan, facts = plan_statistics(model, shape), get_facts(model)
    tokens, scores = plan.tokens, facts.vocab_size * facts.hidden_size
    states = len(plan.layers) + 4 + 2 * changes  # of the float model all; of each change before and after a layer
    return Cost(
        memory=plan.memory + LOGIT_COPIES * 8 * LOGIT_TOKENS * facts.vocab_size + FLOAT * scores,
        disk=tokens * (states * plan.hidden + FLOAT * facts.vocab_size),
        flops=(1 + changes / 2) * plan.flops + (1 + changes) * 2 * tokens * scores,
    )


class _Work:
    """How much is done: layers run, and heads, for each change."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self.progress = total, 0, progress

    def report(self, done: int) -> None:
        self.done += done
        if self.progress:
            self.progress("sensitivity", self.done, self.total)


class _Run:
    """The float model on some sequences, walked: what enters each layer, and the scores; and changes of it."""

    def __init__(self, model: ir.Model, sequences: np.ndarray, folder: Path, context: int | None, work: _Work) -> None:
        self.model, self.sequences, self.folder, self.context, self.work = model, sequences, folder, context, work
        self.head = get_facts(model).layers
        with self._own() as own:
            walk = self._walk(own)
            for step in walk.layers:
                walk.advance(step)
                shutil.copyfile(walk.hidden.path, self._input(step + 1))
            self.scores = Hidden(folder / "scores", (sequences.size, get_facts(model).vocab_size))
            self.scores.write(walk.logits())

    def alone(self, start: int, change: Change) -> float:
        """What a change costs whose first weight is read at the step `start`."""
        with _applied(self.model, change), self._own() as own:
            if start:
                shutil.copyfile(self._input(start), own / f"hidden.{start}")
            walk = self._walk(own, start)
            for step in walk.layers[start:]:
                walk.advance(step)
            (cost,) = self._costs(walk, 1)
        self.work.report(self.head + 1 - start)
        return cost

    def together(self, changes: Mapping[str, tuple[int, Change]]) -> dict[str, float]:
        """What changes cost that touch one layer each, which comes with them."""
        names: list[str] = []  # of those under way, in the order of their hidden states
        with self._own() as own:
            for step in range(self.head):
                if names:
                    self._walk(own, step, copies=len(names)).advance(step)
                    (own / f"hidden.{step}").unlink()
                with (own / f"hidden.{step + 1}").open("ab") as hidden:
                    for name, (layer, change) in changes.items():
                        if layer == step:
                            self._branch(step, change, hidden)
                            names.append(name)
                self.work.report(len(names))
            costs = self._costs(self._walk(own, self.head, copies=len(names)), len(names)) if names else []
        self.work.report(len(names))
        return dict(zip(names, costs, strict=True))

    def _branch(self, step: int, change: Change, hidden: BinaryIO) -> None:
        """Add what leaves a layer that is changed."""
        with _applied(self.model, change), self._own() as own:
            if step:
                shutil.copyfile(self._input(step), own / f"hidden.{step}")
            walk = self._walk(own, step)
            walk.advance(step)
            with walk.hidden.path.open("rb") as file:
                shutil.copyfileobj(file, hidden)

    def _costs(self, walk: Walk, copies: int) -> list[float]:
        """The mean KL divergence of each copy of the sequences."""
        floats = chain.from_iterable(self._rows() for _ in range(copies))
        found = measured([floats, walk.logits()], walk.sequences, divergences)
        klds = np.array([part.kld for part in found])  # [copies * sequences, positions]
        return [float(each.mean()) for each in np.split(klds, copies)]

    def _walk(self, own: Path, start: int = 0, *, copies: int = 1) -> Walk:
        sequences = np.tile(self.sequences, (copies, 1))
        return Walk(self.model, sequences, folder=own, context=self.context, start=start)

    def _rows(self) -> Iterator[np.ndarray]:
        count = self.scores.shape[0]
        for start in range(0, count, LOGIT_TOKENS):
            yield self.scores.read(start, min(start + LOGIT_TOKENS, count))

    def _input(self, step: int) -> Path:
        return self.folder / f"input.{step}"

    @contextmanager
    def _own(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder) as own:
            yield Path(own)


def _reads(model: ir.Model) -> dict[str, set[int]]:
    """The steps of a walk that read each initializer: the embedding, layers, the head."""
    steps: dict[str, set[int]] = {}
    head = get_facts(model).layers
    for node in model.graph:
        number = layer(node)
        step = number if number is not None else head if role(node) in AFTER_LAYERS else EMBEDDING
        for value in node.inputs:
            if value is not None and value.is_initializer():
                steps.setdefault(str(value.name), set()).add(step)
    return steps


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
