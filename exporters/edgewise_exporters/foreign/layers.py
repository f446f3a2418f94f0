"""exporters, foreign: the residual stream between layers, and to which layer and part of it each operator belongs."""

import onnx_ir as ir

from edgewise.graph import LAYER, Roles, get_facts, layer, mark, role
from edgewise_exporters.decoder.builder import TOKENS
from edgewise_exporters.foreign.widths import Known, width

NORMS = {"RMSNormalization": "norm", "LayerNormalization": "layer_norm"}
READERS = ("attention.q", "attention.qkv")


def name_layers(model: ir.Model) -> str:
    """Name what enters each layer, and the last norm, `hidden.{i}`; give operators their layers, and norms their roles.

    Gives what stands against it.
    """
    roles, count = Roles.of(model), get_facts(model).layers
    for number in range(count):
        entry = next((node for name in READERS if (node := roles.maybe(name, number))), None)
        if entry is None or not _name_entry(entry, number, "attention."):
            return f"what enters layer {number} is not told apart"
        for inner in roles.all("mlp.up", number):
            _mark_norm(inner, "mlp.", number)
    head = roles.maybe("lm_head")
    if head is None or not _name_entry(head, count, ""):
        return "what enters the lm_head is not told apart"
    _place(model, count)
    _state_shapes(model)
    return ""


def _name_entry(reader: ir.Node, number: int, prefix: str) -> bool:
    """Name what is normalised for a product, or what it reads as it is."""
    norm = _mark_norm(reader, prefix, number if prefix else None)
    value = norm.inputs[0] if norm else reader.inputs[0]
    if value is None or value.is_graph_input() or str(value.name).startswith("hidden."):
        return False
    value.name = f"hidden.{number}"
    return True


def _mark_norm(reader: ir.Node, prefix: str, number: int | None) -> ir.Node | None:
    value = reader.inputs[0]
    norm = value.producer() if value is not None else None
    if norm is None or norm.op_type not in NORMS:
        return None
    return mark(norm, f"{prefix}{NORMS[norm.op_type]}", number)


def _state_shapes(model: ir.Model) -> None:
    """Types and shapes of activations, which whoever runs a layer alone reads."""
    known: Known = {}
    for node in model.graph:
        value = node.outputs[0]
        if (size := width(value, known)) and not value.is_graph_output():
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape((*TOKENS, size))


def _place(model: ir.Model, count: int) -> None:
    """The layer of each operator between two of these values."""
    reached: dict[ir.Value, int] = {}
    for node in model.graph:
        numbers = [reached[value] for value in node.inputs if value is not None and value in reached]
        number = max(numbers, default=-1)
        if 0 <= number < count and layer(node) is None and role(node) != "lm_head":
            node.metadata_props[LAYER] = str(number)
        for value in node.outputs:
            kind, _, name = str(value.name).partition(".")
            reached[value] = int(name) if kind == "hidden" else number
            if reached[value] < 0:
                del reached[value]
