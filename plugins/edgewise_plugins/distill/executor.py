"""plugins, distill: the canonical graph as a torch module: what was exported, pruned or quantized can learn."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from edgewise.errors import GraphError
from edgewise.graph import ZEROS, get_facts
from edgewise.quantized import BlockQuantized
from edgewise.tensors import Streamed, Transposed, constant, streamed, transpose
from edgewise_plugins.distill.fake import FakeQuantized
from edgewise_plugins.distill.plan import Learn, Precision
from edgewise_plugins.operators import OPERATORS, Tensor

FIXED = "rotary."  # tables are computed, not learned


class Executor(torch.nn.Module):
    """A canonical graph on whole sequences, without padding.

    >>> executor = Executor(model)
    >>> executor(input_ids)["logits"]        # [sequences, length, vocabulary], of int64 [sequences, length]

    Its parameters are the float initializers of the graph, by their names; matrices as the graph holds them,
    `[in, out]`; zeros that a matrix states stay. Of a quantized one they are the floats that are rounded and the scales
    that they are rounded with; with `learn="scales"` the scales alone, and nothing else of the graph. Raises GraphError
    for an operator that the canonical graph does not have.
    """

    def __init__(self, model: ir.Model, *, learn: Learn = "weights", precision: Precision = "float32") -> None:
        super().__init__()
        self.precision = precision  # of products, where they are computed within `narrowed`
        self.nodes = list(model.graph)
        self.layers = get_facts(model).layers
        for node in self.nodes:
            if node.op_type not in OPERATORS or node.domain:
                raise GraphError(f"node '{node.name}': '{node.op_type}' is no operator of the canonical graph")
        self._places: dict[str, str] = {}  # names with dots are none that a module can have
        self._orders: dict[tuple[tuple[str, ...], ...], list[ir.Node]] = {}
        for number, (name, value) in enumerate(model.graph.initializers.items()):
            assert value.const_value is not None
            self._places[str(name)] = f"weight_{number}"
            zeros = ZEROS in value.metadata_props
            self._hold(f"weight_{number}", str(name), streamed(value.const_value), learn, zeros=zeros)

    def forward(
        self, input_ids: Tensor, wanted: Sequence[str] = ("logits",), given: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The values of these names: "logits", "hidden.3", "present.0.key".

        `given` are values that are known: inputs (a cache, with the mask and the positions that go with it), or hidden
        states to go on from. What nothing wanted needs is not computed.
        """
        given = given or {}
        values = {
            "input_ids": input_ids,
            "position_ids": torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids),
            "attention_mask": torch.ones_like(input_ids),
            **given,
        }
        nodes = self._needed(tuple(wanted), tuple(given))
        held = {str(value.name) for node in nodes for value in node.inputs if value is not None} & self._places.keys()
        values |= {name: self._value(name) for name in held}
        for node in nodes:
            inputs = [None if value is None else values.get(str(value.name)) for value in node.inputs]
            outputs = OPERATORS[node.op_type](node, inputs)
            values |= {str(value.name): tensor for value, tensor in zip(node.outputs, outputs, strict=False)}
        return {name: values[name] for name in wanted}

    def weights(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """What is learned, by the names of the graph's initializers; of quantized ones, the names of their parts."""
        for name, place in self._places.items():
            held = getattr(self, place)
            if isinstance(held, torch.nn.Parameter):
                yield name, held
            elif isinstance(held, FakeQuantized):
                yield from ((f"{name}.{part}", parameter) for part, parameter in held.named_parameters())

    def write_back(self, model: ir.Model) -> None:
        """Put what was learned into the graph that it was read from, or into one with the same initializers."""
        for name, place in self._places.items():
            held, value = getattr(self, place), model.graph.initializers[name]
            if isinstance(held, FakeQuantized):
                matrix: Streamed = held.quantized(name)
                value.const_value = transpose(matrix) if held.turned else matrix
                value.const_value.name = name
            elif isinstance(held, torch.nn.Parameter):
                value.const_value = constant(held.detach().float().cpu().numpy().copy(), name=name)

    def _hold(self, place: str, name: str, tensor: Streamed, learn: Learn, *, zeros: bool) -> None:
        base = tensor.base if isinstance(tensor, Transposed) else tensor
        if isinstance(base, BlockQuantized):
            turned = isinstance(tensor, Transposed)
            fake = FakeQuantized(base, turned=turned, only_scales=learn == "scales")
            self.add_module(place, fake)
            if zeros and learn == "weights":
                keep_zeros(fake.weight)
            return
        array = tensor.numpy()
        learned = array.dtype == np.float32 and not name.startswith(FIXED) and learn == "weights"
        if learned:
            parameter = torch.nn.Parameter(torch.tensor(array))
            self.register_parameter(place, parameter)
            if zeros:
                keep_zeros(parameter)
        else:
            self.register_buffer(place, torch.tensor(array), persistent=False)

    def _value(self, name: str) -> Tensor:
        held = getattr(self, self._places[name])
        value: Tensor = held() if isinstance(held, FakeQuantized) else held
        return value

    def _needed(self, wanted: tuple[str, ...], given: tuple[str, ...]) -> list[ir.Node]:
        if (wanted, given) not in self._orders:
            names, found = set(wanted) - set(given), []
            for node in reversed(self.nodes):
                if not names.isdisjoint(str(value.name) for value in node.outputs):
                    found.append(node)
                    names.update(str(value.name) for value in node.inputs if value is not None)
                    names -= set(given)
            self._orders[wanted, given] = found[::-1]
        return self._orders[wanted, given]


def narrowed(executor: Executor) -> torch.autocast:
    """Products in the precision of the executor, and sums in float32 whatever that is."""
    device = next(executor.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=executor.precision == "bfloat16")


def keep_zeros(parameter: torch.nn.Parameter) -> None:
    """What is zero has no gradient, and stays."""
    zeros = parameter.detach() == 0
    parameter.register_hook(lambda gradient: gradient.masked_fill(zeros.to(gradient.device), 0))  # type: ignore[no-untyped-call]
