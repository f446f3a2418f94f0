"""sdk, calibration: the statistics of a model on some sequences: computed once, layer by layer, and kept."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import cache_folder, claimed
from edgewise.calibration.fingerprint import array_digest, fingerprint
from edgewise.calibration.gram import add_gram, mirror
from edgewise.calibration.plan import plan_statistics
from edgewise.calibration.routing import Routing, RoutingSums, routing
from edgewise.calibration.stages import linears_by_input
from edgewise.calibration.statistics import VERSION, Statistics
from edgewise.calibration.unfinished import Unfinished
from edgewise.calibration.walk import Walk
from edgewise.errors import OptionError
from edgewise.graph import Linear, get_facts
from edgewise.writer import Progress

logger = logging.getLogger(__name__)


class Accumulator:
    """Sums over the tokens that entered some linears, a chunk at a time."""

    def __init__(self, size: int, *, gram: bool) -> None:
        self.tokens = 0
        self.squares, self.absolutes = np.zeros((2, size), np.float64)
        self.largest = np.zeros(size, np.float32)
        self.gram = np.zeros((size, size), np.float32) if gram else None

    def add(self, x: np.ndarray) -> None:
        """Tokens more, float32 `[tokens, K]`."""
        work = np.abs(x)
        np.maximum(self.largest, work.max(axis=0), out=self.largest)
        self.absolutes += work.sum(axis=0)
        self.squares += np.square(work, out=work).sum(axis=0)
        self.tokens += len(x)
        if self.gram is not None:
            add_gram(self.gram, x)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The tensors of a statistics file."""
        arrays: dict[str, np.ndarray] = {
            f"{name}.tokens": np.array([self.tokens], np.int64),
            f"{name}.second_moment": (self.squares / max(1, self.tokens)).astype(np.float32),
            f"{name}.max_abs": self.largest,
            f"{name}.mean_abs": (self.absolutes / max(1, self.tokens)).astype(np.float32),
        }
        if self.gram is not None:
            mirror(self.gram)
            self.gram /= np.float32(max(1, self.tokens))
            arrays[f"{name}.gram"] = self.gram
        return arrays


def collect(
    model: ir.Model,
    sequences: np.ndarray,
    *,
    gram: bool = False,
    context: int | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """The statistics of what enters each linear, from the cache if they are there.

    With `gram` the whole second moments too: K x K for each input, on disk. A run that was killed goes on after the
    last layer that it finished. Raises OptionError, before it starts, for what does not fit into memory or disk.
    """
    if not any(rotary.follows_context for rotary in get_facts(model).rotary.values()):
        context = None  # statistics of another context serve as well
    key = fingerprint(model, VERSION, gram, context, array_digest(sequences))
    path = cache_folder() / f"{key}.safetensors"
    if statistics := _cached(path):
        return statistics
    with claimed(key) as folder:
        if statistics := _cached(path):
            return statistics
        plan_statistics(model, sequences.shape, gram=gram).refuse_what_does_not_fit(folder)
        started = time.perf_counter()
        _collect(model, sequences, folder, path, gram=gram, context=context, progress=progress)
        logger.info("calibration on %s tokens: %.1f s", f"{sequences.size:,}", time.perf_counter() - started)
    return Statistics.load(path)


def _cached(path: Path) -> Statistics | None:
    if not path.exists():
        return None
    try:
        return Statistics.load(path)
    except OptionError as error:
        logger.warning("%s", error)
        path.unlink(missing_ok=True)
        return None


def _collect(
    model: ir.Model,
    sequences: np.ndarray,
    folder: Path,
    path: Path,
    *,
    gram: bool,
    context: int | None,
    progress: Progress | None,
) -> None:
    by_layer = linears_by_input(model)
    indices, mixtures = (*range(get_facts(model).layers), None), routing(model)
    layers = [by_layer.get(layer, {}) for layer in indices]
    shared = {name: [linear.name for linear in group] for layer in layers for name, group in layer.items()}
    tensors = [_tensors(layer, gram=gram) for layer in layers]
    for layer, mixture in mixtures.items():
        tensors[layer] |= mixture.tensors
    unfinished = Unfinished(folder, tensors, shared)
    walk = Walk(model, sequences, folder=folder, context=context, start=unfinished.done, progress=progress)
    for layer in (*walk.layers, walk.head)[unfinished.done :]:
        arrays = _pass(walk, layer, mixtures.get(layer), gram=gram)
        unfinished.write(arrays, hidden=None if layer == walk.head else walk.hidden.digest)
    unfinished.finish(path)


def _pass(walk: Walk, layer: int, mixture: Routing | None, *, gram: bool) -> dict[str, np.ndarray]:
    """Go through one layer; the tensors of the file on what entered its linears."""
    groups = walk.inputs(layer)
    sums = {group[0].name: Accumulator(_features(group), gram=gram) for group in groups.values()}

    def observe(linears: Sequence[Linear], x: np.ndarray) -> None:
        sums[linears[0].name].add(x)

    experts = RoutingSums(mixture) if mixture else None
    if layer == walk.head:
        walk.observe(layer, observe)
    elif experts is None:
        walk.advance(layer, observe)
    else:
        walk.advance(layer, observe, watch=experts.routing.names, watcher=experts.add)
    arrays = experts.arrays() if experts else {}
    for name, group in groups.items():
        arrays |= sums[group[0].name].arrays(name)
    return arrays


def _features(linears: Sequence[Linear]) -> int:
    return linears[0].matrix.dims[1]


def _tensors(inputs: Mapping[str, Sequence[Linear]], *, gram: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What the file holds on the inputs of one layer."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, linears in inputs.items():
        size = _features(linears)
        tensors[f"{name}.tokens"] = ("I64", (1,))
        tensors |= {f"{name}.{part}": ("F32", (size,)) for part in ("second_moment", "max_abs", "mean_abs")}
        if gram:
            tensors[f"{name}.gram"] = ("F32", (size, size))
    return tensors
