"""exporters, t5: the MLP block, gated (arXiv 2002.05202) or not, from its norm to its residual."""

import onnx_ir as ir

from edgewise_exporters.t5.block import Block


def feed_forward(block: Block, hidden: ir.Value, part: str, name: str) -> ir.Value:
    """The residual stream that leaves the block, under its name."""
    module, size = f"{part}.DenseReluDense", block.architecture.intermediate_size
    x = block.norm("mlp.norm", hidden, f"{part}.layer_norm")
    if block.architecture.gated:
        gate = block.linear("mlp.gate", x, f"{module}.wi_0", size, block.width)
        up = block.linear("mlp.up", x, f"{module}.wi_1", size, block.width)
        shape = (*block.tokens, size)
        y = block.op("mlp.product", "Mul", _activate(block, gate, module), up, name=f"{module}.product", shape=shape)
    else:
        y = _activate(block, block.linear("mlp.up", x, f"{module}.wi", size, block.width), module)
    y = block.linear("mlp.down", y, f"{module}.wo", block.width, size)
    role, shape = block.role("mlp.residual"), (*block.tokens, block.width)
    return block.builder.op("Add", hidden, y, name=name, shape=shape, role=role, layer=block.index)


def _activate(block: Block, x: ir.Value, module: str) -> ir.Value:
    kind, role, name = block.architecture.activation, "mlp.activation", f"{module}.activation"
    shape = (*block.tokens, block.architecture.intermediate_size)
    if kind == "relu":
        return block.op(role, "Relu", x, name=name, shape=shape)
    if kind == "silu":
        gate = block.op(role, "Sigmoid", x, name=f"{module}.sigmoid", shape=shape)
        return block.op(role, "Mul", x, gate, name=name, shape=shape)
    return block.op(role, "Gelu", x, name=name, shape=shape, approximate="tanh" if kind == "gelu_tanh" else "none")
