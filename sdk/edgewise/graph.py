"""sdk: the canonical graph: the metadata that an exporter states, and the ways to read it back.

Nodes carry their `layer`, their `role` and, for attention, its specification; passes and lowerings go by these and
never by a name or a pattern. Roles of a decoder layer, in order of computation:

    attention.norm  attention.q  attention.k  attention.v  (attention.q.bias ...)  attention.q.norm  attention.k.norm
    attention.q.rotary  attention.k.rotary  (attention.k.cache  attention.v.cache)  attention  (attention.sink)
    attention.o  (attention.o.bias)  attention.post_norm  attention.residual
    mlp.norm  mlp.gate  mlp.up  mlp.activation  mlp.product  mlp.down  mlp.post_norm  mlp.residual

where a layer has a mixture of experts, between mlp.norm and mlp.post_norm

    router  (router.bias)  router.probabilities  (router.correction  router.groups)  router.top  (router.chosen)
    (router.kept)  (router.normalized  router.scaled)  router.gates
    expert.gate  expert.up  (expert.gate.bias ...)  expert.activation  expert.product  expert.down  expert.weighted
    expert.sum
    (shared.gate  shared.up  shared.activation  shared.product  shared.down  shared.router  shared.weighted  shared.sum)

and around the layers: embedding, embedding.scale, norm, (lm_head.turn), lm_head, logits. An activation of several nodes
(SiLU) gives each of them the role; so does the rounding of keys, and of values, to what a cache in int8 holds
(QuantizeLinear, DequantizeLinear). Where a weight has its input features in another order, a Gather before the product
brings them into it: attention.q.order, mlp.down.order ..., one for those that share input and order. The residual
stream that enters layer i is the value `hidden.{i}`; `hidden.{layers}` enters the final norm.

What experts are chosen by is the input of `router.top`: probabilities, or these with a correction, of some groups.
Where it is not the probabilities, `router.chosen` reads those of the chosen. Of these `router.kept` makes zeros of
small ones, whose experts are skipped. The share of a softmax that a head's sink
takes is taken from the result of the attention, which gives its scores for that.

Nodes of one expert carry its number. Every expert computes every token here; the value of `router.gates`,
`[batch, sequence, experts]`, weights what they give, with zeros for the experts that a token is not given to.

A matrix may state that it has zeros which are to stay: `2:4`, or a share as `0.5`. Another float matrix in its place
states none. Where all matrices of the layers state the same, the graph does, too: it is what a planner reads after a
lowering.

A product may state what its activations become where its weights are quantized: `float32` or `int8, block 32`, by what
a calibration has measured. Without such a statement that is up to the target.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from edgewise.errors import GraphError
from edgewise.facts import RUN_BY, AnyFacts, EncoderFacts, Facts
from edgewise.options import convert, record
from edgewise.quantized import BlockQuantized
from edgewise.tensors import Streamed, streamed, transpose

FACTS = "edgewise.facts"
ROLE = "edgewise.role"
LAYER = "edgewise.layer"
EXPERT = "edgewise.expert"
ACTIVATIONS = "edgewise.activations"
REMARK = "edgewise.remark."
ZEROS = "edgewise.zeros"
FLOAT = "float32"  # activations that are not rounded

OPSET = 23
IR_VERSION = 10


def set_facts(model: ir.Model, facts: AnyFacts) -> None:
    model.metadata_props[FACTS] = json.dumps(record(facts), sort_keys=True)


def get_facts(model: ir.Model) -> Facts:
    """The facts of a decoder; GraphError for a graph that does not state them, or that is of another task."""
    facts = any_facts(model)
    if not isinstance(facts, Facts):
        raise GraphError(
            f"this is for models that generate text; the graph is one for {facts.task} ({facts.model_type}), "
            f"which {RUN_BY[facts.task]} run once it is built"
        )
    return facts


def any_facts(model: ir.Model) -> AnyFacts:
    """The facts of a model, whatever its task; GraphError for a graph that does not state them."""
    if FACTS not in model.metadata_props:
        raise GraphError("the graph states no facts (metadata 'edgewise.facts'): was it made by an exporter?")
    facts: AnyFacts = convert(AnyFacts, json.loads(model.metadata_props[FACTS]), what="facts of the graph")
    return facts


def is_encoder(model: ir.Model) -> bool:
    """Whether the model embeds or labels texts, by its facts."""
    return FACTS in model.metadata_props and isinstance(any_facts(model), EncoderFacts)


def remark(model: ir.Model, about: str, sentence: str) -> None:
    """Put a sentence about what was done to a model on its plan and its card."""
    model.metadata_props[f"{REMARK}{about}"] = sentence


def remarks(model: ir.Model) -> tuple[str, ...]:
    """What passes have remarked."""
    return tuple(said for key, said in sorted(model.metadata_props.items()) if key.startswith(REMARK))


def mark(node: ir.Node, role: str, layer: int | None = None) -> ir.Node:
    node.metadata_props[ROLE] = role
    if layer is not None:
        node.metadata_props[LAYER] = str(layer)
    return node


def role(node: ir.Node) -> str | None:
    return node.metadata_props.get(ROLE)


def layer(node: ir.Node) -> int | None:
    number = node.metadata_props.get(LAYER)
    return None if number is None else int(number)


def state_expert(node: ir.Node, number: int) -> ir.Node:
    node.metadata_props[EXPERT] = str(number)
    return node


def expert(node: ir.Node) -> int | None:
    """The number of the expert, in its layer, that a node belongs to."""
    number = node.metadata_props.get(EXPERT)
    return None if number is None else int(number)


def state_activations(node: ir.Node, kind: str) -> ir.Node:
    node.metadata_props[ACTIVATIONS] = kind
    return node


def activations(node: ir.Node) -> str | None:
    """What a product states about its activations; None: nothing."""
    return node.metadata_props.get(ACTIVATIONS)


@dataclass(frozen=True)
class Roles:
    """The nodes of a graph by layer and role: `roles.one("attention.q", 3)`."""

    nodes: dict[tuple[str, int | None], list[ir.Node]]

    @classmethod
    def of(cls, model: ir.Model) -> "Roles":
        nodes: dict[tuple[str, int | None], list[ir.Node]] = {}
        for node in model.graph:
            if name := role(node):
                nodes.setdefault((name, layer(node)), []).append(node)
        return cls(nodes)

    def all(self, role: str, layer: int | None = None) -> list[ir.Node]:
        return self.nodes.get((role, layer), [])

    def maybe(self, role: str, layer: int | None = None) -> ir.Node | None:
        found = self.all(role, layer)
        return found[-1] if found else None

    def one(self, role: str, layer: int | None = None) -> ir.Node:
        """The (last) node of that role; GraphError where there is none."""
        if node := self.maybe(role, layer):
            return node
        where = "the graph" if layer is None else f"layer {layer}"
        raise GraphError(f"{where} has no node with role '{role}'")

    def layers(self) -> list[int]:
        return sorted({layer for _, layer in self.nodes if layer is not None})


@dataclass(frozen=True)
class Linear:
    """A matrix product with a constant weight, or the embedding: what quantization and pruning work on.

    `matrix` is the weight as the checkpoint stores it, `[out_features, in_features]`; a tied lm_head and the
    embedding are one value, met twice.
    """

    node: ir.Node
    role: str
    layer: int | None
    value: ir.Value  # the initializer

    @property
    def name(self) -> str:
        return str(self.value.name)

    @property
    def expert(self) -> int | None:
        return expert(self.node)

    @property
    def matrix(self) -> Streamed:
        """The weight, `[out_features, in_features]`, in the dtype that it has in the graph; nothing is read."""
        tensor = streamed(self.value.const_value)
        return tensor if self.stored_by_rows else transpose(tensor)

    @property
    def zeros(self) -> str | None:
        """The zeros that it states; None: nothing."""
        return self.value.metadata_props.get(ZEROS)

    def state_zeros(self, pattern: str | None) -> None:
        """State zeros that are to stay; None takes the statement back."""
        self.value.metadata_props.pop(ZEROS, None)
        if pattern is not None:
            self.value.metadata_props[ZEROS] = pattern

    def replace(self, matrix: Streamed) -> None:
        """Another weight of the same kind in its place; keeps the checkpoint's name. Rounding keeps zeros."""
        if not isinstance(matrix, BlockQuantized):
            self.state_zeros(None)
        tensor = matrix if self.stored_by_rows else transpose(matrix)
        tensor.name = self.name
        self.value.const_value = tensor
        self.value.shape = ir.Shape(tensor.dims)
        self.value.type = ir.TensorType(tensor.dtype)  # a new one: clones of a graph share theirs

    @property
    def stored_by_rows(self) -> bool:
        """Whether the initializer is `[out, in]` (an embedding, tied or not) and not `[in, out]` (a MatMul)."""
        return self.node.op_type == "Gather" or self.node.inputs[1] is not self.value


def linears(model: ir.Model) -> Iterator[Linear]:
    """Every embedding and every matrix product with a constant weight, in graph order."""
    for node in model.graph:
        name = role(node)
        if name is None or node.op_type not in ("MatMul", "Gather"):
            continue
        value = node.inputs[0] if node.op_type == "Gather" else node.inputs[1]
        if value is not None and (producer := value.producer()) and producer.op_type == "Transpose":
            value = producer.inputs[0]
        if value is not None and value.is_initializer():
            yield Linear(node, name, layer(node), value)


def layer_matrices(model: ir.Model) -> Iterator[Linear]:
    """Those of the layers, but routers: where most of the weights are."""
    return (each for each in linears(model) if each.layer is not None and not each.role.endswith("router"))


def gather_zeros(model: ir.Model) -> None:
    """State of the graph what all matrices of its layers state."""
    stated = {each.zeros for each in layer_matrices(model)}
    if len(stated) == 1 and (pattern := stated.pop()):
        model.metadata_props[ZEROS] = pattern
