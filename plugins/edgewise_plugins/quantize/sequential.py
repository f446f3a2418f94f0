"""plugins, quantize: GPTQ over a whole model, layer after layer: later layers see what the earlier ones became.

For each input of a layer's matrices: its second moments on the calibration text, with all that comes before it
quantized; then these matrices by GPTQ. The float model goes along, so that its outputs can be aimed at (see `drift`).
Results are spilled to disk as they come. A build that was killed goes on after the last layer that it finished.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgewise.calibration.cache import claimed
from edgewise.calibration.calibration import Calibration
from edgewise.calibration.gram import add_gram, mirror
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear, get_facts, linears
from edgewise.passes import calibration_of
from edgewise.quantized import Block, BlockQuantized, Format
from edgewise_plugins.quantize.factor import factorize
from edgewise_plugins.quantize.gptq import Moments, gptq
from edgewise_plugins.quantize.observed import TOKENS_PER_FEATURE, observed
from edgewise_plugins.quantize.spill import Spill
from edgewise_plugins.quantize.tied import final_gains, with_embedding
from edgewise_plugins.quantize.underway import Underway

if TYPE_CHECKING:
    from edgewise_plugins.quantize.autoround_layers import AutoRound

logger = logging.getLogger(__name__)

OURS, FLOATS = "ours", "floats"  # where the hidden states of the two models are

ELEMENTS = 1 << 22  # weights at a time: 16 MiB of float32, and some copies
TIED_DAMPING = 10  # times: the rows of an embedding are used alone


def quantize_by_layers(
    model: ir.Model,
    forms: Mapping[str, Format],
    *,
    key: str,
    damping: float,
    learned: Collection[str] = (),
    steps: int = 0,
) -> None:
    """Replace the matrices that `forms` names by quantized ones, in graph order.

    The rounding of `learned` is learned in so many steps, after GPTQ; but for an lm_head, which is in no layer.
    key: of everything that decides the result: what a killed build left under it is gone on with.
    """
    calibration = calibration_of(model, needed_by="GPTQ")
    floats, tied = model.clone(), tied_head(model, forms)
    with claimed(key) as folder:
        underway = Underway(folder, forms, _steps(model, tied))
        if tied and not underway.done:
            with calibration.walk(floats, folder=folder / FLOATS, keep=True) as walk:
                _quantize_tied(walk, tied, underway, damping=damping)
        start = underway.done - bool(tied)
        with (
            calibration.walk(floats, folder=folder / FLOATS, start=start, keep=bool(tied)) as along,
            calibration.walk(model, folder=folder / OURS, start=start) as walk,
        ):
            along.progress = None
            rounding = _rounding(calibration, {name: forms[name] for name in learned}, underway.spill, steps)
            for layer in (*walk.layers, walk.head)[start:]:
                _quantize_layer(walk, along, layer, underway, rounding, damping=damping)
        _say_kept(underway.journal.counts)


def _steps(model: ir.Model, tied: Linear | None) -> list[list[Linear]]:
    """The matrices of each layer, and of the head; before them a head that is the embedding."""
    products = {linear.name: linear for linear in linears(model) if linear.role != "embedding"}
    layers = (*range(get_facts(model).layers), None)
    if not tied:
        return [[linear for linear in products.values() if linear.layer == layer] for layer in layers]
    del products[tied.name]
    return [[tied], *([linear for linear in products.values() if linear.layer == layer] for layer in layers)]


def _quantize_layer(
    walk: Walk, along: Walk, layer: int, underway: Underway, rounding: "AutoRound | None", *, damping: float
) -> None:
    """One step: the matrices of a layer, and on to the next one."""
    kept, names = {}, [linear.name for linear in underway.steps[underway.done]]
    for group, moments in observed(walk, along, layer, names, damping=damping):
        for linear in group:
            kept[linear.name] = quantize_matrix(linear, moments, underway.forms[linear.name], underway.spill)
    if layer != walk.head:
        _leave(walk, along, layer, rounding)
    underway.finish(kept, walk.position, along, walk)


def _leave(walk: Walk, along: Walk, layer: int, rounding: "AutoRound | None") -> None:
    """Go on from a layer that GPTQ has done, and that the float model may have left already."""
    if along.position == layer:
        along.advance(layer)
    if rounding:
        rounding.learn(walk, along, layer)
    walk.advance(layer)


def _say_kept(kept: Mapping[str, int]) -> None:
    if rows := sum(kept.values()):
        names = ", ".join(name for name in sorted(kept, key=lambda name: -kept[name])[:3] if kept[name])
        logger.info("gptq: %d rows keep round to nearest, which is closer on this text; most in %s", rows, names)


def _rounding(calibration: Calibration, forms: Mapping[str, Format], spill: Spill, steps: int) -> "AutoRound | None":
    """What learns the rounding of matrices, layer by layer; None where there are none to learn."""
    if not forms:
        return None
    from edgewise_plugins.quantize.autoround_layers import AutoRound  # which takes torch

    return AutoRound(calibration, forms, spill, steps)


def compensable(model: ir.Model, names: Collection[str], *, method: str) -> set[str]:
    """Those of `names` that GPTQ can do: they multiply something, and the text has tokens enough for their inputs.

    With fewer than 4 tokens per input feature, GPTQ fits the text more than the model. Raises RecipeError where there
    is no text.
    """
    if not names:
        return set()
    tokens = calibration_of(model, needed_by=f"method '{method}'").sequences.size
    multiplying = [linear for linear in linears(model) if linear.name in names and linear.role != "embedding"]
    short = {linear.matrix.dims[1] for linear in multiplying if linear.matrix.dims[1] * TOKENS_PER_FEATURE > tokens}
    for features in sorted(short):
        logger.warning(
            "matrices of %s input features are quantized by the method grid: GPTQ takes %s tokens for them, and the "
            "calibration text has %s",
            f"{features:,}",
            f"{features * TOKENS_PER_FEATURE:,}",
            f"{tokens:,}",
        )
    return {linear.name for linear in multiplying if linear.matrix.dims[1] not in short}


def tied_head(model: ir.Model, forms: Mapping[str, Format]) -> Linear | None:
    """The lm_head, where it is the embedding's matrix: that is needed before the first layer."""
    embeddings = {linear.name for linear in linears(model) if linear.role == "embedding"}
    tied = (linear for linear in linears(model) if linear.role == "lm_head" and linear.name in embeddings)
    return next((linear for linear in tied if linear.name in forms), None)


def _quantize_tied(walk: Walk, tied: Linear, underway: Underway, *, damping: float) -> None:
    """The first step of a tied model, for which the float model is gone through to its end."""
    for layer in walk.layers:
        underway.reach(walk)
        walk.advance(layer)
    underway.reach(walk)
    moments = _tied_moments(walk, tied, damping=damping)
    kept = quantize_matrix(tied, moments, underway.forms[tied.name], underway.spill)
    underway.finish({tied.name: kept}, 0)


def _tied_moments(walk: Walk, tied: Linear, *, damping: float) -> Moments:
    """Of what enters the lm_head of the float model, and what counts for the embedding that it is too."""
    columns = tied.matrix.dims[1]
    head = np.zeros((columns, columns), np.float32)
    walk.observe(walk.head, lambda _, x: add_gram(head, x))
    mirror(head)
    gram = with_embedding(head / np.float32(walk.sequences.size), tied.matrix, final_gains(walk.model, columns))
    return Moments(gram, factorize(gram, damping * TIED_DAMPING))


def quantize_matrix(linear: Linear, moments: Moments, form: Format, spill: Spill) -> int:
    """Quantize one matrix; how many of its rows keep round to nearest."""
    matrix, kept = by_gptq(linear, moments, form, spill)
    linear.replace(matrix)
    return kept


def by_gptq(linear: Linear, moments: Moments, form: Format, spill: Spill) -> tuple[BlockQuantized, int]:
    """A matrix as GPTQ makes it, computed now; and how many of its rows keep round to nearest."""
    matrix = linear.matrix
    rows, columns = matrix.dims
    step = max(1, ELEMENTS // columns)
    errors, nearest_errors, kept = [], [], 0

    def blocks() -> Iterator[Block]:
        nonlocal kept
        for start in range(0, rows, step):
            part = gptq(matrix, start, min(start + step, rows), moments, form)
            errors.append(part.error)
            nearest_errors.append(part.nearest_error)
            kept += part.kept_rows
            yield part.coded.stored(form)

    quantized = spill.write((rows, columns), form, blocks(), name=linear.name)
    logger.debug("%s: error %.3g, by round to nearest %.3g", linear.name, sum(errors), sum(nearest_errors))
    return quantized, kept
