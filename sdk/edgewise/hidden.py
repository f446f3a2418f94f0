"""sdk: an output for what the lm_head scores: the hidden states after the final norm; contrastive search needs them."""

import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.graph import Roles, get_facts, role

HIDDEN = "hidden_states"


def add_hidden_states(model: ir.Model) -> None:
    """Make the value that enters the lm_head an output, float32 `[batch, sequence, hidden_size]`, of every position.

    A reordering of its channels that a checkpoint's own quantization asks for comes after it.
    """
    value = Roles.of(model).one("lm_head").inputs[0]
    while value is not None and (node := value.producer()) and role(node) == "lm_head.order":
        value = node.inputs[0]
    if value is None or value.is_graph_output():
        raise GraphError("what enters the lm_head cannot be an output: it is one already, or nothing")
    value.name = HIDDEN
    value.shape = ir.Shape(("batch_size", "sequence_length", get_facts(model).hidden_size))
    value.dtype = ir.DataType.FLOAT
    model.graph.outputs.append(value)
