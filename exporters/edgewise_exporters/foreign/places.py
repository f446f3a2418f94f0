"""exporters, foreign: where in a decoder a product is: which layer's keys, values and scores it leads to."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgewise_exporters.foreign.flow import above, below, by_name, is_linear, measures


@dataclass(frozen=True)
class Places:
    """The operators of each layer's attention by the side of it that they are, and their layer.

    k, v: what joins the past and the new. q: the products with keys. o: the products with values.
    """

    logits: ir.Value
    sides: Mapping[str, Mapping[ir.Node, int]]
    upstream: tuple[Collection[ir.Node], ...]  # what the keys and values of each layer are computed by

    @classmethod
    def of(cls, model: ir.Model) -> "Places":
        (logits,) = (value for value in model.graph.outputs if value.name == "logits")
        presents = {(part, layer): value for layer, part, value in by_name(model, "present")}
        sides: dict[str, dict[ir.Node, int]] = {"k": {}, "v": {}, "q": {}, "o": {}}
        for layer, part, past in by_name(model, "past_key_values"):
            joined = {node: layer for node in past.consumers() if not measures(node)}
            sides[part[0]] |= joined
            sides["q" if part == "key" else "o"] |= dict.fromkeys(_products(joined), layer)
        keys = [[presents["key", layer], presents["value", layer]] for layer in range(len(presents) // 2)]
        return cls(logits, sides, tuple(above(both) for both in keys))

    def after(self, node: ir.Node) -> set[ir.Node]:
        """What a product leads to, as far as the next product or a layer's attention."""
        return below(node.outputs, stop=self._ends)

    def before(self, node: ir.Node) -> set[ir.Node]:
        """What a product comes from, as far as the product before it or a layer's attention."""
        return above(node.inputs[:1], stop=self._ends)

    def of_side(self, side: str, nodes: Collection[ir.Node]) -> int | None:
        """The layer whose attention has some of these nodes on a side; None: no layer has."""
        return next((layer for node, layer in self.sides[side].items() if node in nodes), None)

    def gives_logits(self, node: ir.Node, after: Collection[ir.Node]) -> bool:
        maker = self.logits.producer()
        return maker is node or (maker is not None and maker in after and not is_linear(maker))

    def layer(self, node: ir.Node) -> int | None:
        """The layer of what lies behind an attention: before the first whose keys need it; None: before all layers."""
        first = next((layer for layer, nodes in enumerate(self.upstream) if node in nodes), len(self.upstream))
        return first - 1 if first else None

    def _ends(self, node: ir.Node) -> bool:
        return is_linear(node) or measures(node) or any(node in nodes for nodes in self.sides.values())


def _products(joined: Collection[ir.Node]) -> Iterator[ir.Node]:
    """The first products that what is joined goes into."""
    values = [value for node in joined for value in node.outputs]
    for node in below(values, stop=lambda node: node.op_type == "MatMul" or measures(node)):
        if node.op_type == "MatMul":
            yield node
