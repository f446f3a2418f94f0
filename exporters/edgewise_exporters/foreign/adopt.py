"""exporters, foreign: from a decoder graph as others export it to one that the rest of edgewise can work with."""

import onnx_ir as ir
from onnx_ir.passes import common

from edgewise.checkpoint import Checkpoint
from edgewise.graph import remark, set_facts
from edgewise.passes import Pass
from edgewise_exporters.foreign.canonical import state
from edgewise_exporters.foreign.described import describe
from edgewise_exporters.foreign.gelus import RecogniseGelus
from edgewise_exporters.foreign.interface import check
from edgewise_exporters.foreign.linears import MarkLinears
from edgewise_exporters.foreign.norms import RecogniseNorms
from edgewise_exporters.foreign.reshapes import DropCasts
from edgewise_exporters.foreign.tied import TieHead

TIDY = (
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    common.IdentityEliminationPass(),
    common.CommonSubexpressionEliminationPass(),
    common.RemoveUnusedNodesPass(),
)
RECOGNISED: tuple[Pass, ...] = (
    MarkLinears(),
    TieHead(),
    DropCasts(),
    RecogniseNorms(),
    RecogniseGelus(),
)
LEFT = "attention stays as it was exported"


def adopt(model: ir.Model, checkpoint: Checkpoint) -> ir.Model:
    """A decoder graph with a cache that grows by concatenation, with its facts, roles and layers.

    What it computes stays the same. Raises CheckpointError for a graph that is no such decoder, or not the one that
    the checkpoint's config.json describes.
    """
    interface = check(model)
    for tidy in TIDY:
        tidy(model)
    set_facts(model, describe(model, interface, checkpoint))
    for step in RECOGNISED:
        step(model)
    common.RemoveUnusedNodesPass()(model)
    canonical = model.clone()
    problem = state(canonical, checkpoint.config)
    if not problem:
        return canonical
    remark(model, "foreign", f"{LEFT}: {problem}")
    return model
