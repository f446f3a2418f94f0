"""plugins, vocabulary: a graph with fewer tokens, and how much of what it foretells they stand for."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import get_facts, linears, role, set_facts
from edgewise.quality.scorers import Canonical
from edgewise.quantized import BlockQuantized
from edgewise_plugins.views import take_rows

TABLES = ("embedding", "lm_head")
WIDE = ("lm_head", "lm_head.weight", "logits")  # their last axis is the vocabulary


def keep_tokens(model: ir.Model, kept: np.ndarray) -> None:
    """Leave these tokens, in ascending order, in the embedding, the lm_head and the facts of a graph."""
    facts = get_facts(model)
    tables = {linear.value: linear for linear in linears(model) if linear.role in TABLES}
    for linear in tables.values():
        linear.replace(take_rows(linear.matrix, kept))
    for node in model.graph:
        if role(node) in WIDE:
            for value in node.outputs:
                if value.shape is not None and value.shape[-1] == facts.vocab_size:
                    value.shape = ir.Shape([*value.shape[:-1], len(kept)])
    number: Callable[[int], int] = {int(old): new for new, old in enumerate(kept)}.__getitem__
    set_facts(
        model,
        replace(
            facts,
            vocab_size=len(kept),
            bos=None if facts.bos is None else number(facts.bos),
            eos=tuple(map(number, facts.eos)),
            pad=None if facts.pad is None else number(facts.pad),
        ),
    )


def refuse_quantized(model: ir.Model) -> None:
    """Raises GraphError for a vocabulary in few bits."""
    for linear in linears(model):
        if linear.role in TABLES and isinstance(linear.matrix, BlockQuantized):
            raise GraphError(
                f"'{linear.name}' is quantized already ({linear.matrix.form}): 'prune-vocabulary' comes before"
            )


def kept_mass(model: ir.Model, sequences: np.ndarray, kept: np.ndarray, *, context: int | None) -> float:
    """The probability that a model gives to these tokens, in the mean of all positions of some sequences."""
    total, count = 0.0, 0
    for logits in Canonical(model, context=context).logits(sequences):
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        total += float((powers[:, kept].sum(axis=1) / powers.sum(axis=1)).sum())
        count += len(logits)
    return total / count
