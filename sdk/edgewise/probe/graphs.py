"""sdk, probe: small graphs of one kind of operator, which a machine's speed is measured with.

Each is a chain over matrices that are all different (ONNX Runtime keeps equal ones once), so that together they are
more than caches hold, as the layers of a model are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgewise.graph import IR_VERSION, OPSET
from edgewise.quantized import Format

CONTRIB = "com.microsoft"
HIDDEN, INNER = 1024, 4096  # the matrices' sizes, as those of an MLP: in turns up and down


@dataclass
class Chain:
    """A graph under construction: each operator takes what the one before gave."""

    seed: int = 0
    nodes: list[ir.Node] = field(default_factory=list)
    constants: list[ir.Value] = field(default_factory=list)
    inputs: list[ir.Value] = field(default_factory=list)
    outputs: list[ir.Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def input(self, name: str, shape: tuple[int | str, ...], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        self.inputs.append(ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype)))
        return self.inputs[-1]

    def constant(self, array: np.ndarray) -> ir.Value:
        name = f"constant.{len(self.constants)}"
        self.constants.append(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
        return self.constants[-1]

    def add(
        self, op: str, *inputs: ir.Value | None, domain: str = CONTRIB, outputs: int = 1, **attributes: int | float
    ) -> ir.Value:
        """The first output of an operator."""
        node = ir.node(op, inputs, attributes=attributes, domain=domain, num_outputs=outputs)
        for index, value in enumerate(node.outputs):
            value.name = f"{op}.{len(self.nodes)}.{index}"
        self.nodes.append(node)
        return node.outputs[0]

    def output(self, value: ir.Value, name: str, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        value.name, value.type = name, ir.TensorType(dtype)
        self.outputs.append(value)

    def serialized(self) -> bytes:
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self.nodes,
            initializers=self.constants,
            opset_imports={"": OPSET, CONTRIB: 1},
            name="probe",
        )
        content: bytes = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()
        return content


Product = Callable[[Chain, ir.Value, int, int], ir.Value]  # adds a product of x with a matrix [rows, columns]


def products(count: int, product: Product) -> bytes:
    """`count` products one behind the other: input x `[tokens, HIDDEN]`, output y of the same shape."""
    chain = Chain()
    x = chain.input("x", ("tokens", HIDDEN))
    for index in range(count):
        x = product(chain, x, *((INNER, HIDDEN) if index % 2 == 0 else (HIDDEN, INNER)))
    chain.output(x, "y")
    return chain.serialized()


def blocks(form: Format) -> Product:
    """Products with matrices of few bits, as `lower-ort` makes them."""

    def product(chain: Chain, x: ir.Value, rows: int, columns: int) -> ir.Value:
        count = form.blocks(columns)
        codes = chain.random.integers(0, 256, (rows, count, form.blob), np.uint8)
        scales = np.full((rows, count), 2 / (form.top * np.sqrt(columns)), np.float32)
        zeros = chain.random.integers(0, 256, (rows, form.zero_point_bytes(columns)), np.uint8)
        side = [] if form.symmetric else [chain.constant(zeros)]
        inputs = [x, chain.constant(codes), chain.constant(scales), *side]
        return chain.add(
            "MatMulNBits", *inputs, K=columns, N=rows, bits=form.bits, block_size=form.block_size, accuracy_level=4
        )

    return product


def floats(chain: Chain, x: ir.Value, rows: int, columns: int) -> ir.Value:
    """A product with a matrix in float32."""
    weights = chain.random.standard_normal((columns, rows), np.float32) / np.float32(np.sqrt(columns))
    return chain.add("MatMul", x, chain.constant(weights), domain="")


def int8_rows(chain: Chain, x: ir.Value, rows: int, columns: int) -> ir.Value:
    """A product of int8 weights with uint8 activations."""
    weights = chain.random.integers(-127, 128, (columns, rows), np.int8)
    one, zero = chain.constant(np.array(1 / 40, np.float32)), chain.constant(np.array(128, np.uint8))
    scales = chain.constant(np.full(rows, 1 / (70 * np.sqrt(columns)), np.float32))
    codes = chain.add("QuantizeLinear", x, one, zero, domain="")
    return chain.add("MatMulIntegerToFloat", codes, chain.constant(weights), one, scales, zero)


def layers(count: int, width: int, inner: int, product: Product) -> bytes:
    """MLPs as bundles have them, of small matrices, one behind the other: input x `[1, tokens, width]`, output y."""
    chain = Chain()
    x = chain.input("x", (1, "tokens", width))
    ones, y = chain.constant(np.ones(width, np.float32)), x
    for _ in range(count):
        y = chain.add("SkipSimplifiedLayerNormalization", y, x, ones)
        up = product(chain, y, inner, width)
        y = product(chain, chain.add("Mul", chain.add("QuickGelu", up, alpha=1.0), up, domain=""), width, inner)
    chain.output(y, "y")
    return chain.serialized()


@dataclass(frozen=True)
class Heads:
    """The attention that is measured."""

    layers: int = 4
    heads: int = 16
    kv_heads: int = 4
    head_dim: int = 64
    positions: int = 2048


def attention(shape: Heads) -> bytes:
    """GroupQueryAttention, each with a cache of its own, on the same queries, keys and values (input x)."""
    chain = Chain()
    width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    x = chain.input("x", (1, "tokens", width))
    lengths = [chain.input("seqlens_k", (1,), ir.DataType.INT32), chain.input("total", (), ir.DataType.INT32)]
    angles = np.outer(np.arange(shape.positions), np.ones(shape.head_dim // 2))
    tables = [chain.constant(np.cos(angles, dtype=np.float32)), chain.constant(np.sin(angles, dtype=np.float32))]
    for index, names in enumerate(caches(shape)):
        past = [chain.input(name, (1, shape.kv_heads, "capacity", shape.head_dim)) for name in names]
        y = chain.add(
            "GroupQueryAttention",
            *(x, None, None, *past, *lengths, *tables),
            outputs=3,
            do_rotary=1,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
        )
        chain.output(y, f"y.{index}")
        for value, name in zip(chain.nodes[-1].outputs[1:], names, strict=True):
            chain.output(value, f"{name}.present")
    return chain.serialized()


def caches(shape: Heads) -> Iterator[tuple[str, str]]:
    """The names of each layer's keys and values."""
    return ((f"keys.{index}", f"values.{index}") for index in range(shape.layers))
