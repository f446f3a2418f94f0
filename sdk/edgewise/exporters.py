"""sdk: which exporter takes a checkpoint: the first, by name, that supports it; those that are fallbacks come last."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.contracts import Appraiser, Exporter, Offer, Refusal
from edgewise.errors import CheckpointError, MissingExtra, PluginError
from edgewise.registry import registry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Appraisal:
    """What one exporter says about a checkpoint."""

    exporter: str
    package: str
    verdict: Offer | Refusal


def export_graph(checkpoint: Checkpoint, *, exporter: str | None = None) -> ir.Model:
    """The graph of a checkpoint, by the exporter of that name, or by the first that supports it."""
    return exporter_for(checkpoint, exporter).export(checkpoint)


def exporter_for(checkpoint: Checkpoint, exporter: str | None = None) -> Exporter:
    """The exporter of that name, or the first that supports the checkpoint. Raises CheckpointError where none does."""
    if exporter:
        return registry().exporters.get(exporter)()
    refusals = []
    for candidate in _installed():
        verdict = _appraise(candidate, checkpoint)
        if isinstance(verdict, Offer):
            return candidate
        refusals.append(verdict)
    near = [refusal for refusal in refusals if refusal.near]
    raise CheckpointError((near or refusals or [Refusal("no exporter is installed")])[0].reason)


def appraisals(checkpoint: Checkpoint) -> list[Appraisal]:
    """What each exporter says about a checkpoint, in the order in which they are asked for its graph."""
    owner = registry().exporters.owner
    return [Appraisal(each.name, owner(each.name), _appraise(each, checkpoint)) for each in _installed()]


def _appraise(exporter: Exporter, checkpoint: Checkpoint) -> Offer | Refusal:
    """What it says; of one that only knows yes and no, that."""
    if isinstance(exporter, Appraiser):
        return exporter.appraise(checkpoint)
    if exporter.supports(checkpoint):
        return Offer("not stated", "not stated", "not stated")
    return Refusal("it does not support this checkpoint, and says no more")


def _installed() -> Iterator[Exporter]:
    """Those that load, by name, fallbacks last; one that does not is a warning, and stands in nobody else's way.

    None is loaded before it is asked.
    """
    fallbacks = []
    for name in registry().exporters.names():
        try:
            exporter = registry().exporters.get(name)()
        except (PluginError, MissingExtra) as error:
            logger.warning("%s", error)
        else:
            if getattr(exporter, "fallback", False):
                fallbacks.append(exporter)
            else:
                yield exporter
    yield from fallbacks
