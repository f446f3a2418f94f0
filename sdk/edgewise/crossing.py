"""sdk: an encoder-decoder is one canonical graph; here it is cut in two, at the keys and values that cross over.

The encoder is run once for a source text and gives `cross.{i}.key` and `cross.{i}.value` for each layer of the decoder,
`[1, heads, source, head_dim]`; the decoder reads them in every step, whatever its rows are.
"""

import onnx_ir as ir

from edgewise.facts import Facts

SOURCE_IDS = "encoder_input_ids"  # of the whole graph
INPUT_IDS = "input_ids"  # of both halves


def crossing(layer: int, part: str) -> str:
    """What the keys, or the values, of the source are called in a layer of the decoder."""
    return f"cross.{layer}.{part}"


def crossings(facts: Facts) -> list[str]:
    return [crossing(layer, part) for layer in range(facts.layers) for part in ("key", "value")]


def cut(model: ir.Model, facts: Facts) -> tuple[ir.Model, ir.Model]:
    """The decoder and the encoder of a graph, which stays as it was; what both read is one tensor."""
    return _decoder(model.clone(), facts), _encoder(model.clone(), facts)


def _encoder(model: ir.Model, facts: Facts) -> ir.Model:
    """What computes the keys and values, and no more."""
    graph, names = model.graph, crossings(facts)
    found = {value.name: value for node in graph for value in node.outputs if value.name in names}
    graph.outputs[:] = [found[name] for name in names]
    for value in graph.outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
        layer = int(str(value.name).split(".")[1])
        value.shape = _shape(facts, layer)
    (source,) = (value for value in graph.inputs if value.name == SOURCE_IDS)
    graph.inputs[:] = [source]
    _remove_unused(graph)
    source.name = INPUT_IDS
    return model


def _decoder(model: ir.Model, facts: Facts) -> ir.Model:
    """The rest, which is given them."""
    graph, names = model.graph, crossings(facts)
    found = {value.name: value for node in graph for value in node.outputs if value.name in names}
    graph.inputs[:] = [value for value in graph.inputs if value.name != SOURCE_IDS]
    for name in names:
        found[name].name = None
        kind, shape = ir.TensorType(ir.DataType.FLOAT), _shape(facts, int(name.split(".")[1]))
        given = ir.Value(name=name, type=kind, shape=shape)
        found[name].replace_all_uses_with(given)
        graph.inputs.append(given)
    _remove_unused(graph)
    return model


def _shape(facts: Facts, layer: int) -> ir.Shape:
    a = facts.attention[layer]
    return ir.Shape((1, a.kv_heads, "encoder_sequence_length", a.head_dim))


def _remove_unused(graph: ir.Graph) -> None:
    """Nodes that nothing reads, and inputs and constants that nothing reads then."""
    for node in reversed(graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    graph.inputs[:] = [value for value in graph.inputs if value.uses()]
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
            del graph.initializers[name]
