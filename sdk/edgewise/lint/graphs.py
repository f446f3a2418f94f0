"""sdk, lint: what holds for a graph as a whole: versions, lengths, size."""

import re
from collections.abc import Iterator

import onnx_ir as ir

from edgewise.graph import FACTS, get_facts, is_encoder
from edgewise.lint.finding import Finding
from edgewise.rings import slots
from edgewise.sizes import distinct, halved_bytes, stored_bytes
from edgewise.target import Target

# What ONNX Runtime 1.31 reads, whatever the device.
OPSET = 26
IR_VERSION = 13

GRAPH = ("the graph",)
PAST = re.compile(r"past_key_values\.(\d+)\.(?:key|value)")


def opset(model: ir.Model, target: Target) -> Iterator[Finding]:
    limit = min(target.needs.opset or OPSET, OPSET)
    version = model.graph.opset_imports.get("", 0)
    if version > limit:
        yield Finding(
            "opset", GRAPH, f"is of opset {version}, and {limit} is the highest", f"export it with opset {limit}"
        )


def ir_version(model: ir.Model, target: Target) -> Iterator[Finding]:
    if model.ir_version > IR_VERSION:
        problem = f"is of IR version {model.ir_version}, and {IR_VERSION} is the highest that ONNX Runtime reads"
        yield Finding("ir-version", GRAPH, problem, "set `ir_version = 10` before it is saved")


def lengths(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Where a device compiles graphs of fixed lengths, every dimension of an input is a number."""
    fixed = target.needs.static
    if fixed is None:
        return
    build = f"build it for the target: edgewise build CHECKPOINT --target {target.name}"
    for value in model.graph.inputs:
        free = [str(dim) for dim in value.shape or ("any",) if not isinstance(dim, int)]
        if free and not value.is_initializer():
            yield Finding("lengths", (f"'{value.name}'",), f"its dimension '{free[0]}' is free", build)
        elif value.name == "input_ids" and value.shape and value.shape[-1] not in (fixed.prefill, 1):
            problem = f"it holds {value.shape[-1]} tokens, and graphs of {fixed.prefill} and of 1 are compiled"
            yield Finding("lengths", ("'input_ids'",), problem, build)


def rings(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Where lengths are fixed, a layer that looks back a window keeps no more than it can need."""
    fixed = target.needs.static
    if fixed is None or FACTS not in model.metadata_props:
        return
    attention = get_facts(model).attention
    for value in model.graph.inputs:
        found = PAST.fullmatch(str(value.name))
        held = value.shape[2] if found and value.shape and len(value.shape) == 4 else None
        if found is None or not isinstance(held, int) or int(found[1]) >= len(attention):
            continue
        window = attention[int(found[1])].window
        if enough := slots(window, fixed.prefill, held):
            problem = (
                f"it keeps {held:,} positions of a layer that looks back {window:,}: a ring of {enough:,} is enough"
            )
            fix = f"build it for the target: edgewise build CHECKPOINT --target {target.name}"
            yield Finding("rings", (f"'{value.name}'",), problem, fix)


def size(model: ir.Model, target: Target) -> Iterator[Finding]:
    limit = target.needs.graph_bytes
    if limit is None:
        return
    written = halved_bytes if target.compile and target.compile.halves else stored_bytes
    total = sum(map(written, distinct(model)))
    if total > limit.value:
        problem = f"has {total:,} bytes of weights, and {limit.value:,.0f} are the most in one graph"
        yield Finding("size", GRAPH, problem, "quantize to fewer bits, or choose a smaller model")


def layout(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Keys and values are `[batch, heads, positions, head size]`, where a device wants that."""
    if target.needs.layout != "BNSH":
        return
    decodes = FACTS in model.metadata_props and not is_encoder(model)
    heads = [a.kv_heads for a in get_facts(model).attention] if decodes else []
    for value in model.graph.inputs:
        found = PAST.fullmatch(str(value.name))
        if found and value.shape is not None:
            dims = tuple(value.shape)
            stated = heads[int(found[1]) :][:1]  # nothing, where the graph states no facts
            if len(dims) != 4 or dims[1] not in (stated or dims[1:2]):
                shape = ", ".join(map(str, dims))
                fix = "transpose it in front of the graph, or lower the checkpoint with edgewise"
                yield Finding("layout", (f"'{value.name}'",), f"[{shape}] is not [batch, heads, positions, size]", fix)
