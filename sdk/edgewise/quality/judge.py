"""sdk, quality: what a build does with its quality text: figures for the card, and the gate of the recipe."""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgewise.bundle.read import Bundle
from edgewise.calibration.cache import scratch
from edgewise.errors import GateError, GraphError
from edgewise.options import record
from edgewise.prepare import Prepared
from edgewise.quality.activations import activation_errors
from edgewise.quality.evaluate import assess
from edgewise.quality.layers import is_quantized, layer_costs
from edgewise.quality.report import Distance, Quality
from edgewise.quality.scorers import lowered, unquantized
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import Progress

logger = logging.getLogger(__name__)

DIGITS = 6  # of the figures on a card
TOKENS = 512  # on which blame is laid
WORST = 5  # layers that are named
ARITHMETIC = 0.5  # share of the divergence that weights account for, below which they are not to blame


def judge(
    bundle: Bundle, prepared: Prepared, sequences: np.ndarray, *, progress: Progress | None = None
) -> dict[str, Any]:
    """The figures of a bundle against the float graph of its checkpoint, for the card; of a second one, if it scores.

    Raises GateError where the recipe's gate does not let it pass, which names the layers that cost most.
    """
    figures = _judge_graph(bundle, None, prepared, sequences, progress)
    if "prefill" in bundle.manifest.graphs and not bundle.manifest.cache.capacity:  # those have no scores
        figures["prefill"] = _judge_graph(bundle, "prefill", prepared, sequences, progress)
    return figures | ({"gate": record(prepared.gate)} if prepared.gate else {})


def _judge_graph(
    bundle: Bundle, graph: str | None, prepared: Prepared, sequences: np.ndarray, progress: Progress | None
) -> dict[str, Any]:
    started = time.perf_counter()
    model = lowered(bundle, length=sequences.shape[1], graph=graph)
    reference = unquantized(prepared.reference, context=model.model.context, progress=progress)
    with scratch() as folder:
        found = assess(model, reference, sequences, Tokenizer.load(bundle.path), folder=folder, progress=progress)
    logger.info("quality on %s tokens: %.1f s", f"{found.tokens:,}", time.perf_counter() - started)
    assert found.distance is not None
    if prepared.gate and (failures := prepared.gate.failures(found.distance)):
        if graph:
            raise GateError(f"the graph '{graph}': {'; '.join(failures)}")
        raise GateError("; ".join(failures) + _blame(prepared, sequences, found.distance.mean_kld, progress))
    return _figures(found, found.distance)


def _blame(prepared: Prepared, sequences: np.ndarray, mean_kld: float, progress: Progress | None) -> str:
    """What costs most, for the end of a sentence; nothing where it cannot be told."""
    floats = [graph for graph in prepared.graphs[:-1] if not is_quantized(graph)]  # folded and rotated, if asked for
    if not floats:
        return ""
    reduced, some = prepared.graphs[-1], sequences[: max(1, TOKENS // sequences.shape[1])]
    try:
        costs = layer_costs(floats[-1], reduced, some, context=prepared.context, progress=progress)
    except GraphError as error:
        return f". Its layers cannot be told apart: {error}"
    if sum(costs.values()) < ARITHMETIC * mean_kld:
        errors = activation_errors(reduced, some, context=prepared.context, progress=progress)
        return (
            f". The weights alone cost {sum(costs.values()):.2g}: the target's arithmetic costs most. Where int8 "
            f"activations change a product most (relative error): {_worst(errors)}"
        )
    return f". What costs most (mean KL divergence of it alone): {_worst(costs)}"


def _worst(costs: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {cost:.2g}" for name, cost in list(costs.items())[:WORST])


def _figures(found: Quality, distance: Distance) -> dict[str, Any]:
    """Plain data as it comes back from a file, rounded: the last digits are those of a processor."""
    plain = dataclasses.asdict(found) | dataclasses.asdict(distance)
    del plain["distance"]
    rounded = {key: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for key, value in plain.items()}
    figures: dict[str, Any] = json.loads(json.dumps(rounded))
    return figures
