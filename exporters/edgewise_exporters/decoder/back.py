"""exporters, decoder: the way back: a canonical graph as a checkpoint of its family, which is proved by reading it.

What is written is exported again before a byte is on the disk; where that is not the same graph, layer by layer and
node by node, the family has no way to say what a pass has done, and the first thing that it cannot say is named.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError, GraphError
from edgewise.facts import Facts
from edgewise.graph import expert, get_facts, layer, role
from edgewise_exporters.decoder.architecture import read_architecture
from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.sized import BIASES, biases, config_of
from edgewise_exporters.decoder.written import tensors_of

ADVICE = "leave out what adds it, or build a bundle, which has a place for it"


class Step(NamedTuple):
    """A node, as far as a checkpoint decides it."""

    role: str
    layer: int
    expert: int
    computes: str


def checkpoint_of(
    model: ir.Model, source: Checkpoint, family: Family, export: Callable[[Checkpoint], ir.Model]
) -> Checkpoint:
    """The checkpoint of a model that was exported from `source`. Raises GraphError for what its family cannot say."""
    before = read_architecture(source, family)
    biased = [name for key in biases(model, before) for name in BIASES[key]]
    tensors = tensors_of(model, family, biased=biased)
    written = dataclasses.replace(source, config=config_of(model, source, before), tensors=tensors)
    try:
        again = export(written)
    except CheckpointError as error:
        raise GraphError(f"the model is no '{family.model_type}' checkpoint any more: {error}; {ADVICE}") from error
    _refuse_difference(model, again, family, zeros=biased)
    return written


def _refuse_difference(model: ir.Model, again: ir.Model, family: Family, *, zeros: list[str]) -> None:
    added = {f"{name}.bias" for name in zeros}  # which may be zeros
    ours, theirs = _steps(model), _steps(again)
    missing = [step for step in ours - theirs if step.role not in added]
    extra = [step for step in theirs - ours if step.role not in added]
    for step in sorted(missing or extra):
        where = "around the layers" if step.layer < 0 else f"in layer {step.layer}"
        raise GraphError(f"'{step.role}' {where} ({step.computes}) has no place in a '{family.model_type}': {ADVICE}")
    said, heard = _facts(model), _facts(again)
    for field in dataclasses.fields(said):
        if getattr(said, field.name) != getattr(heard, field.name):
            raise GraphError(f"'{field.name}' as it is now cannot be said of a '{family.model_type}': {ADVICE}")


def _facts(model: ir.Model) -> Facts:
    """Without rotary embeddings that no layer uses any more."""
    facts = get_facts(model)
    used = {attention.rotary for attention in facts.attention}
    rotary = {name: rotary for name, rotary in facts.rotary.items() if name in used}
    return dataclasses.replace(facts, rotary=rotary)


def _steps(model: ir.Model) -> Counter[Step]:
    found = [(node, name) for node in model.graph if (name := role(node))]
    return Counter(Step(name, _number(layer(node)), _number(expert(node)), _computes(node)) for node, name in found)


def _number(value: int | None) -> int:
    return -1 if value is None else value


def _computes(node: ir.Node) -> str:
    """The operator, its attributes, the shapes of its weights, and the values of its other constants."""
    attributes = sorted(f"{name}={attribute.value}" for name, attribute in node.attributes.items())
    constants = [_constant(value) for value in node.inputs if value is not None and value.is_initializer()]
    return f"{node.op_type}({', '.join(attributes + constants)})"


def _constant(value: ir.Value) -> str:
    tensor = value.const_value
    assert tensor is not None
    shape = list(tensor.shape)
    is_weight = tensor.dtype == ir.DataType.FLOAT and len(shape) > 0
    return str(shape) if is_weight else f"{shape}={tensor.numpy().tolist()}"
