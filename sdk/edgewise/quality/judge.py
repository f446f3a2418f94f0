"""sdk, quality: what a build does with its quality text: figures for the card, and the gate of the recipe."""

import dataclasses
import json
import logging
import time
from typing import Any

import numpy as np

from edgewise.bundle.read import Bundle
from edgewise.calibration.cache import scratch
from edgewise.errors import GateError, GraphError
from edgewise.options import record
from edgewise.prepare import Prepared, export_graph
from edgewise.quality.evaluate import assess
from edgewise.quality.layers import is_quantized, layer_costs
from edgewise.quality.report import Distance, Quality
from edgewise.quality.scorers import Canonical, lowered
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import Progress

logger = logging.getLogger(__name__)

DIGITS = 6  # of the figures on a card
WORST = 5  # layers that are named
ARITHMETIC = 0.5  # share of the divergence that weights account for, below which they are not to blame


def judge(
    bundle: Bundle, prepared: Prepared, sequences: np.ndarray, *, progress: Progress | None = None
) -> dict[str, Any]:
    """The figures of a bundle against the float graph of its checkpoint, for the card.

    Raises GateError where the recipe's gate does not let it pass, which names the layers that cost most.
    """
    started = time.perf_counter()
    model = lowered(bundle, length=sequences.shape[1])
    reference = Canonical(export_graph(prepared.checkpoint), context=model.model.context, progress=progress)
    with scratch() as folder:
        found = assess(model, reference, sequences, Tokenizer.load(bundle.path), folder=folder, progress=progress)
    logger.info("quality on %s tokens: %.1f s", f"{found.tokens:,}", time.perf_counter() - started)
    assert found.distance is not None
    if prepared.gate and (failures := prepared.gate.failures(found.distance)):
        raise GateError("; ".join(failures) + _blame(prepared, sequences, found.distance.mean_kld, progress))
    gate = {"gate": record(prepared.gate)} if prepared.gate else {}
    return {**_figures(found, found.distance), **gate}


def _blame(prepared: Prepared, sequences: np.ndarray, mean_kld: float, progress: Progress | None) -> str:
    """What costs most, for the end of a sentence; nothing where it cannot be told."""
    floats = [graph for graph in prepared.graphs[:-1] if not is_quantized(graph)]  # folded and rotated, if asked for
    if not floats:
        return ""
    try:
        costs = layer_costs(floats[-1], prepared.graphs[-1], sequences, context=prepared.context, progress=progress)
    except GraphError as error:
        return f". Its layers cannot be told apart: {error}"
    if sum(costs.values()) < ARITHMETIC * mean_kld:
        return f". The weights alone cost {sum(costs.values()):.2g}: it is the target's arithmetic that costs most"
    worst = ", ".join(f"{name} {kld:.2g}" for name, kld in list(costs.items())[:WORST])
    return f". What costs most (mean KL divergence of it alone): {worst}"


def _figures(found: Quality, distance: Distance) -> dict[str, Any]:
    """Plain data as it comes back from a file, rounded: the last digits are those of a processor."""
    plain = dataclasses.asdict(found) | dataclasses.asdict(distance)
    del plain["distance"]
    rounded = {key: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for key, value in plain.items()}
    figures: dict[str, Any] = json.loads(json.dumps(rounded))
    return figures
