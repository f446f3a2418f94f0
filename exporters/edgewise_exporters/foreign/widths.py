"""exporters, foreign: which values are activations `[batch, sequence, width]`, and how wide they are."""

import onnx_ir as ir

from edgewise.graph import role
from edgewise.tensors import streamed
from edgewise_exporters.foreign.flow import is_linear

# What goes number by number or token by token, of what the dialects know.
BY_NUMBER = (
    *("Add", "Cast", "Div", "Erf", "Gelu", "LayerNormalization", "Mul", "Pow", "RMSNormalization", "Relu", "Sigmoid"),
    *("Sub", "Tanh"),
)

Known = dict[ir.Value, int | None]


def width(value: ir.Value, known: Known | None = None) -> int | None:
    """The last dimension of an activation `[batch, sequence, width]`; None for what is not seen to be one."""
    known = {} if known is None else known
    if value not in known:
        known[value] = None
        known[value] = _width(value, known)
    return known[value]


def _width(value: ir.Value, known: Known) -> int | None:
    node = value.producer()
    if node is None or node.inputs[0] is None:
        return None
    first = node.inputs[0]
    if is_linear(node):
        return columns(node) if width(first, known) else None
    if node.op_type == "Gather":
        return _gathered(node, known)
    if node.op_type == "Attention":
        return node.attributes.get_int("q_num_heads", 0) * sizes(node.inputs[5])[3]
    if node.op_type == "Split":
        return _share(node, value) if width(first, known) else None
    if node.op_type == "RotaryEmbedding":
        return width(first, known)
    return _by_number(node, known) if node.op_type in BY_NUMBER else None


def _by_number(node: ir.Node, known: Known) -> int | None:
    """Of an operator on numbers at one place; a side that is a product alone is taken to be alike."""
    activations = [each for each in node.inputs if each is not None and not each.is_initializer()]
    widths = [width(each, known) for each in activations]
    if not all(size or _is_product(each) for each, size in zip(activations, widths, strict=True)):
        return None
    return max((size for size in widths if size is not None), default=None)


def likely_width(value: ir.Value, known: Known | None = None) -> int | None:
    """The last dimension of what is taken to be such an activation, whatever comes before it."""
    known = {} if known is None else known
    if value not in known:
        known[value] = None
        known[value] = _likely(value, known)
    return known[value]


def _likely(value: ir.Value, known: Known) -> int | None:
    node = value.producer()
    if node is None:
        return None
    if is_linear(node):
        return columns(node)
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        return _dims(node.inputs[1])[-1]
    if (seen := width(value)) is not None or node.op_type not in (*BY_NUMBER, "Reshape"):
        return seen
    sizes = [size for each in node.inputs[:2] if each is not None and (size := likely_width(each, known)) is not None]
    return max(sizes, default=None)


def columns(product: ir.Node) -> int:
    """Of the matrix of a product, which may be turned."""
    weight = product.inputs[1]
    assert weight is not None
    node = weight.producer()
    return _dims(weight)[1] if node is None else _dims(node.inputs[0])[0]


def _is_product(value: ir.Value) -> bool:
    """Whether it is what a product gives, with a bias or without."""
    node = value.producer()
    if node is not None and node.op_type == "Add":
        node = next((maker for each in node.inputs if each is not None and (maker := each.producer())), node)
    return node is not None and is_linear(node)


def _gathered(node: ir.Node, known: Known) -> int | None:
    """Of rows looked up for each token, by its number or its position; or of some columns of an activation."""
    table, ids = node.inputs
    if table is not None and node.attributes.get_int("axis", 0) == -1 and ids is not None and width(table, known):
        return _dims(ids)[0]
    while ids is not None and (maker := ids.producer()) is not None and maker.op_type in ("Add", "Cast"):
        ids = next((each for each in maker.inputs if each is not None and not each.is_initializer()), None)
    by_position = ids is not None and ids.name == "position_ids"
    is_table = (by_position or role(node) == "embedding") and len(_dims(table)) == 2
    return _dims(table)[1] if is_table else None


def _share(node: ir.Node, value: ir.Value) -> int | None:
    sizes = node.inputs[1] if len(node.inputs) > 1 else None
    if sizes is None or sizes.const_value is None:
        return None
    return int(sizes.const_value.numpy()[list(node.outputs).index(value)])


def _dims(value: ir.Value | None) -> tuple[int, ...]:
    return () if value is None or value.const_value is None else streamed(value.const_value).dims


def sizes(value: ir.Value | None) -> tuple[int, ...]:
    """The dimensions of an input, as far as they are numbers; 0 for others."""
    shape = () if value is None or value.shape is None else tuple(value.shape)
    return tuple(size if isinstance(size, int) else 0 for size in shape)
