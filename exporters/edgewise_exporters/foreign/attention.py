"""exporters, foreign: attention spelled out in products and a softmax becomes the operator, with its specification.

What is tried is what `candidates` names; what is taken agrees with the graph's own operators on random numbers: in runs
of several sizes, with padding, and where the whole context but two tokens is held, which a window would show in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.facts import Facts
from edgewise.graph import get_facts, layer, role
from edgewise_exporters.decoder.builder import BATCH, FLOAT, TOKENS, TOTAL
from edgewise_exporters.decoder.shared import Shared
from edgewise_exporters.foreign.candidates import Candidate, candidates
from edgewise_exporters.foreign.cases import CASES, Case, agree, feeds
from edgewise_exporters.foreign.flow import above, by_name, is_linear
from edgewise_exporters.foreign.onto import Onto, alone
from edgewise_exporters.foreign.region import Arrays, Region, run
from edgewise_exporters.foreign.widths import likely_width

SIDES = ("attention.q", "attention.k", "attention.v")
FUSED = "attention.qkv"


@dataclass(frozen=True)
class Found:
    """The attention of a layer in a graph: what its products give (q, k, v, or all in one), and what it makes."""

    layer: int
    flats: tuple[ir.Value, ...]
    region: Region

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        """What enters the product behind it, and present keys and values."""
        return self.region.outputs


def find(model: ir.Model, number: int) -> Found | None:
    """The attention of a layer; None where its products are not told apart, or it reads anything else."""
    presents = {part: value for index, part, value in by_name(model, "present") if index == number}
    behind = [node for node in model.graph if role(node) == "attention.o" and layer(node) == number]
    if len(behind) != 1 or behind[0].inputs[0] is None:
        return None
    outputs = [_whole(behind[0].inputs[0]), presents["key"], presents["value"]]
    products = {
        role(node): node for node in above(outputs, stop=is_linear) if is_linear(node) and layer(node) == number
    }
    names = (FUSED,) if FUSED in products else SIDES
    if set(products) != set(names):
        return None
    flats = tuple(_flat(products[name]) for name in names)
    region = Region.of(model, outputs, flats)
    return Found(number, flats, region) if region and set(region.inputs) >= set(flats) else None


def _whole(entering: ir.Value) -> ir.Value:
    """What an attention gives, `[batch, sequence, width]`, before its tokens are laid out in rows for a product."""
    node = entering.producer()
    before = node.inputs[0] if node is not None and node.op_type == "Reshape" else None
    maker = before.producer() if before is not None else None
    return before if before is not None and maker is not None and maker.op_type == "Reshape" else entering


def _flat(product: ir.Node) -> ir.Value:
    """What a product gives, with its bias, `[batch, sequence, width]`."""
    value, entering = product.outputs[0], product.inputs[0]
    for user in value.consumers():
        if role(user) == f"{role(product)}.bias":
            value = user.outputs[0]
    maker = entering.producer() if entering is not None else None
    readers = list(value.consumers())
    in_rows = maker is not None and maker.op_type == "Reshape"
    return readers[0].outputs[0] if in_rows and [node.op_type for node in readers] == ["Reshape"] else value


def recognise(
    model: ir.Model, found: Found, config: Mapping[str, Any], *, first: Candidate | None = None
) -> Candidate | None:
    """What an attention computes, proven; None where no candidate agrees. `first` is tried before the others."""
    facts = get_facts(model)
    known = facts.attention[found.layer]
    rotates = any(node.op_type in ("Cos", "Sin") for node in found.region.nodes)
    tried = candidates(known, found.layer, config, fused=len(found.flats) == 1, rotates=rotates)
    runs = list(_runs(found, facts))
    if len(runs) <= len(CASES):
        return None
    likely = [first] if first else []
    return next((candidate for candidate in (*likely, *tried) if _agrees(found, candidate, facts, runs)), None)


def _runs(found: Found, facts: Facts) -> Iterator[tuple[Case, Arrays, list[np.ndarray]]]:
    """Runs of the graph's own operators: what they were given, and gave."""
    for case in (*CASES, Case(1, 2, facts.context_length - 2)):
        arrays = feeds(case, (*found.region.inputs, *found.region.measured))
        wanted = found.region.run(arrays) if arrays else None
        if arrays is None or wanted is None:
            return
        yield case, arrays, wanted


def _agrees(
    found: Found,
    candidate: Candidate,
    facts: Facts,
    runs: Sequence[tuple[Case, Arrays, list[np.ndarray]]],
) -> bool:
    widths = tuple(map(likely_width, found.flats))
    a, total = candidate.spec, sum(size or 0 for size in widths)
    if total != (a.heads + 2 * a.kv_heads) * a.head_dim:
        return False
    builder = Onto({})
    shared = Shared(builder, stated(facts, {found.layer: candidate}))
    flats = [
        builder.input(str(flat.name), FLOAT, (*TOKENS, size or 0))
        for flat, size in zip(found.flats, widths, strict=True)
    ]
    proto = alone(builder, write(builder, shared, found.layer, candidate, flats))
    for case, arrays, wanted in runs:
        ours = run(proto, arrays)
        if ours is None or not agree(ours[0], wanted[0], case.real):
            return False
        if not all(map(agree, ours[1:], wanted[1:])):
            return False
    return True


def stated(facts: Facts, found: Mapping[int, Candidate]) -> Facts:
    """The facts with what was found of some layers."""
    attention = tuple(found[number].spec if number in found else a for number, a in enumerate(facts.attention))
    rotary = next((each.rotary for each in found.values() if each.rotary), None)
    return replace(facts, attention=attention, rotary={"global": rotary} if rotary else {})


def write(
    builder: Onto, shared: Shared, number: int, candidate: Candidate, flats: Sequence[ir.Value]
) -> list[ir.Value]:
    """The canonical operators of an attention: its result, and present keys and values."""
    a, path = candidate.spec, f"model.layers.{number}.self_attn"
    q, k, v = flats if candidate.layout == "apart" else _apart(builder, number, candidate, flats[0], path)
    q = _rotated(builder, shared, number, "q", candidate, q, a.heads, path)
    k = _rotated(builder, shared, number, "k", candidate, k, a.kv_heads, path)
    attributes = {"q_num_heads": a.heads, "kv_num_heads": a.kv_heads, "scale": a.scale}
    inputs = [q, k, v, shared.mask(a.window), *shared.past[number]]
    node = ir.node("Attention", inputs, attributes=attributes, num_outputs=3, name=path)
    cache = (BATCH, a.kv_heads, TOTAL, a.head_dim)
    shapes = [(path, (*TOKENS, a.heads * a.head_dim)), (f"{path}.keys", cache), (f"{path}.values", cache)]
    return list(builder.add(node, [(*each, FLOAT) for each in shapes], role="attention", layer=number))


def _apart(builder: Onto, number: int, candidate: Candidate, flat: ir.Value, path: str) -> list[ir.Value]:
    """Queries, keys and values of one product."""
    a, place = candidate.spec, "attention.qkv.parts"
    heads = {"q": a.heads, "k": a.kv_heads, "v": a.kv_heads}
    wide = [(f"{path}.{part}", count * a.head_dim) for part, count in heads.items()]
    if candidate.layout == "parts":
        sizes = builder.integers(*(size for _, size in wide))
        node = ir.node("Split", [flat, sizes], attributes={"axis": -1}, num_outputs=3, name=f"{path}.parts")
        return list(builder.add(node, [(name, (*TOKENS, size), FLOAT) for name, size in wide], place, number))
    group = a.heads // a.kv_heads
    columns = np.arange(a.kv_heads * (group + 2) * a.head_dim).reshape(a.kv_heads, group + 2, a.head_dim)
    parts = (columns[:, :group], columns[:, group], columns[:, group + 1])

    def gather(indices: np.ndarray, name: str, size: int) -> ir.Value:
        picked, shape = builder.integers(*indices.ravel()), (*TOKENS, size)
        return builder.op("Gather", flat, picked, name=name, shape=shape, role=place, layer=number, axis=-1)

    return [gather(part, *each) for part, each in zip(parts, wide, strict=True)]


def _rotated(
    builder: Onto, shared: Shared, number: int, part: str, candidate: Candidate, x: ir.Value, heads: int, path: str
) -> ir.Value:
    rotary, a = candidate.rotary, candidate.spec
    if rotary is None:
        return x
    some: dict[str, Any] = {"rotary_embedding_dim": rotary.dim} if rotary.dim < a.head_dim else {}
    if rotary.interleaved:
        some["interleaved"] = 1
    return builder.op(
        "RotaryEmbedding",
        x,
        *shared.tables["global"],
        shared.positions,
        name=f"{path}.{part}_rotary",
        shape=(*TOKENS, heads * a.head_dim),
        role=f"attention.{part}.rotary",
        layer=number,
        num_heads=heads,
        **some,
    )
