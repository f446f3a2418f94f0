"""exporters, decoder: the way back: a canonical graph, as passes have left it, as the tensors of a checkpoint.

Weights go by roles, not by names: a layer has the number that it has now, fused projections are one tensor again, and
an offset that was added to norms is taken off.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import expert, layer, linears, role
from edgewise.tensors import Streamed, concatenate, constant, map_rows, streamed
from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.model import EMBEDDING, HEAD
from edgewise_exporters.decoder.stacked import columns
from edgewise_exporters.decoder.stacks import FUSED

AROUND = {"embedding": EMBEDDING.removesuffix(".weight"), "lm_head": HEAD.removesuffix(".weight"), "norm": "model.norm"}

VECTORS = {"attention.sink": "self_attn.sinks"}  # of no module of their own


@dataclass(frozen=True)
class Part:
    """A weight of the graph: the module that it is of, and which of the roles that share it."""

    module: str
    role: str
    kind: str  # weight or bias
    tensor: Streamed


def tensors_of(model: ir.Model, family: Family, *, biased: Sequence[str] = ()) -> Mapping[str, Streamed]:
    """The tensors of a checkpoint, float32, by name. Raises GraphError for a weight that the family has no place for.

    biased: roles of projections that have a bias there, wherever the graph has none: zeros.
    """
    modules: dict[str, list[Part]] = {}
    stacks: dict[str, dict[tuple[str, str], list[Streamed]]] = {}
    in_stacks = family.mixture is not None and family.mixture.stacks == "columns"
    for part in _parts(model, family):
        if in_stacks and part.role.startswith("expert."):
            stacks.setdefault(part.module, {}).setdefault((part.role, part.kind), []).append(part.tensor)
        else:
            modules.setdefault(f"{part.module}.{part.kind}", []).append(part)
    found = {name: _joined(name, parts, family) for name, parts in modules.items()}
    for path, parts in stacks.items():
        found |= columns(path, parts)
    for part in [part for parts in modules.values() for part in parts if part.role in biased]:
        name = f"{part.module}.bias"
        if name not in found:
            found[name] = constant(np.zeros(found[f"{part.module}.weight"].dims[0], np.float32), name=name)
    return dict(sorted(found.items()))


def _parts(model: ir.Model, family: Family) -> Iterator[Part]:
    matrices = {linear.node: linear for linear in linears(model)}
    seen = set()
    for node in model.graph:
        name = role(node) or ""
        if node in matrices:
            linear = matrices[node]
            if linear.value not in seen:  # a tied lm_head is the embedding
                seen.add(linear.value)
                yield Part(_module(node, name, family), name, "weight", linear.matrix)
        elif node.op_type == "RMSNormalization":
            yield Part(_module(node, name, family), name, "weight", _gain(node, family))
        elif vector := _vector(node, name):
            module, _, kind = _place(node, name, family).rpartition(".")
            yield Part(module, name.removesuffix(".bias"), kind, streamed(vector.const_value))


def _vector(node: ir.Node, name: str) -> ir.Value | None:
    """What a node adds, or takes away, that is of the checkpoint."""
    if not name.endswith(".bias") and name not in (*VECTORS, "router.correction"):
        return None
    held = [value for value in node.inputs if value is not None and value.is_initializer()]
    return next((value for value in held if value.dtype == ir.DataType.FLOAT), None)


def _place(node: ir.Node, name: str, family: Family) -> str:
    """The whole name of such a vector."""
    path, mixture = f"model.layers.{layer(node)}.", family.mixture
    if name in VECTORS:
        return path + VECTORS[name]
    if name == "router.correction" and mixture and mixture.correction:
        return path + mixture.correction
    return f"{_module(node, name.removesuffix('.bias'), family)}.bias"


def _gain(node: ir.Node, family: Family) -> Streamed:
    value = node.inputs[1]
    assert value is not None
    gains = streamed(value.const_value)
    return map_rows(gains, lambda rows: rows - np.float32(family.norm_offset)) if family.norm_offset else gains


def _module(node: ir.Node, name: str, family: Family) -> str:
    """The path of the module that a weight of this role is of."""
    number, mixture = layer(node), family.mixture
    if number is None and name in AROUND:
        return AROUND[name]
    modules = {**family.projections, **family.norms}
    if mixture:
        modules["router"] = mixture.router
        for part, module in mixture.modules.items():
            alone = f"{mixture.experts}.{expert(node)}.{module}"
            modules[part] = FUSED if mixture.stacks == "columns" else alone
    if mixture and (shared := mixture.shared):
        modules |= {f"shared.{part}": f"{shared.module}.{part}_proj" for part in ("gate", "up", "down")}
        modules |= {"shared.router": shared.gate} if shared.gate else {}
    if name in modules:
        return f"model.layers.{number}.{modules[name]}"
    where = "around the layers" if number is None else f"of layer {number}"
    raise GraphError(f"the weight '{name}' {where} has no place in a '{family.model_type}' checkpoint")


def _joined(name: str, parts: Sequence[Part], family: Family) -> Streamed:
    """Of a module that several roles share, their rows one below the other."""
    if len(parts) == 1:
        return parts[0].tensor
    order = list(family.projections)
    return concatenate([part.tensor for part in sorted(parts, key=lambda part: order.index(part.role))], name=name)
