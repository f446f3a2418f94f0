"""plugins, distill: the canonical graph as a torch module: what was exported, pruned or quantized can learn."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir
import torch

from edgewise.errors import GraphError
from edgewise.graph import get_facts
from edgewise.tensors import constant, streamed
from edgewise_plugins.operators import OPERATORS, Tensor

FIXED = "rotary."  # tables are computed, not learned


class Executor(torch.nn.Module):
    """A canonical graph on whole sequences, without padding and without a cache.

    >>> executor = Executor(model)
    >>> executor(input_ids)["logits"]        # [sequences, length, vocabulary], of int64 [sequences, length]

    Its parameters are the float initializers of the graph, by their names; matrices as the graph holds them,
    `[in, out]`. Quantized ones are the floats that their codes stand for. Raises GraphError for an operator that the
    canonical graph does not have.
    """

    def __init__(self, model: ir.Model) -> None:
        super().__init__()
        self.nodes = list(model.graph)
        self.layers = get_facts(model).layers
        for node in self.nodes:
            if node.op_type not in OPERATORS or node.domain:
                raise GraphError(f"node '{node.name}': '{node.op_type}' is no operator of the canonical graph")
        self._places: dict[str, str] = {}  # names with dots are none that a module can have
        for number, (name, value) in enumerate(model.graph.initializers.items()):
            assert value.const_value is not None
            place, array = f"weight_{number}", streamed(value.const_value).numpy()
            self._places[str(name)] = place
            if array.dtype == np.float32 and not str(name).startswith(FIXED):
                self.register_parameter(place, torch.nn.Parameter(torch.tensor(array)))
            else:
                self.register_buffer(place, torch.tensor(array), persistent=False)

    def forward(self, input_ids: Tensor, wanted: Sequence[str] = ("logits",)) -> dict[str, Tensor]:
        """The values of these names: "logits", "hidden.3"; what nothing wanted needs is not computed."""
        values = {name: getattr(self, place) for name, place in self._places.items()}
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        values |= {
            "input_ids": input_ids,
            "position_ids": positions,
            "attention_mask": torch.ones_like(input_ids),
        }
        for node in self._needed(wanted):
            inputs = [None if value is None else values.get(str(value.name)) for value in node.inputs]
            outputs = OPERATORS[node.op_type](node, inputs)
            values |= {str(value.name): tensor for value, tensor in zip(node.outputs, outputs, strict=False)}
        return {name: values[name] for name in wanted}

    def weights(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The parameters by the names of the graph's initializers."""
        for name, place in self._places.items():
            if isinstance(parameter := getattr(self, place), torch.nn.Parameter):
                yield name, parameter

    def write_back(self, model: ir.Model) -> None:
        """Put the parameters into the graph that they were read from, or into one with the same initializers."""
        for name, parameter in self.weights():
            value = model.graph.initializers[name]
            array = parameter.detach().float().cpu().numpy().copy()
            value.const_value = constant(array, name=name)

    def _needed(self, wanted: Sequence[str]) -> list[ir.Node]:
        names, found = set(wanted), []
        for node in reversed(self.nodes):
            if not names.isdisjoint(str(value.name) for value in node.outputs):
                found.append(node)
                names.update(str(value.name) for value in node.inputs if value is not None)
        return found[::-1]
