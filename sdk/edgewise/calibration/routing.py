"""sdk, calibration: how often each expert of a layer is chosen, with which gates, and how much it then adds.

Over all tokens, with g the gates that the model applies (0 for experts that a token is not given to) and f(x) what an
expert makes of a token

    counts      tokens given to the expert
    gates       sum of g: the soft count
    saliency    mean over the tokens given to it of g |f(x)| (REAP, arXiv 2510.13999)
    norms       mean over the tokens given to it of |f(x)|
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.graph import Roles, get_facts, role
from edgewise.tensors import Streamed

PARTS = {"counts": "I64", "gates": "F32", "saliency": "F32", "norms": "F32"}


@dataclass(frozen=True)
class ExpertStatistics:
    """What the experts of one layer did; arrays are `[experts]`. `counts / tokens` is how often each was chosen."""

    tokens: int
    counts: np.ndarray
    gates: np.ndarray
    saliency: np.ndarray
    norms: np.ndarray


@dataclass(frozen=True)
class Routing:
    """The values of one layer's mixture: its gates `[..., experts]`, and what each expert makes of every token."""

    layer: int
    gates: str
    outputs: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.gates, *self.outputs)

    @property
    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """What a statistics file holds on them: dtype and shape by name."""
        parts = {f"experts.{self.layer}.{part}": (dtype, (len(self.outputs),)) for part, dtype in PARTS.items()}
        return {f"experts.{self.layer}.tokens": ("I64", (1,)), **parts}


def routing(model: ir.Model) -> dict[int, Routing]:
    """By layer, of those that have a mixture of experts."""
    roles, found = Roles.of(model), {}
    for layer, experts in enumerate(get_facts(model).experts):
        if experts is not None:
            gates = next(node for node in roles.all("router.gates", layer) if node.op_type == "ScatterElements")
            outputs = tuple(str(_output(node).name) for node in roles.all("expert.weighted", layer))
            found[layer] = Routing(layer, str(gates.outputs[0].name), outputs)
    return found


def _output(weighted: ir.Node) -> ir.Value:
    """What an expert makes of every token, its bias included: the other side of the product is its gate."""
    sides = [(value, value.producer()) for value in weighted.inputs if value is not None]
    (output,) = (value for value, node in sides if node is None or role(node) != "router.gates")
    return output


class RoutingSums:
    """Sums over the tokens of one layer, a chunk at a time."""

    def __init__(self, routing: Routing) -> None:
        self.routing, self.tokens = routing, 0
        self.counts = np.zeros(len(routing.outputs), np.int64)
        self.gates, self.saliency, self.norms = np.zeros((3, len(routing.outputs)), np.float64)

    def add(self, values: Mapping[str, np.ndarray]) -> None:
        """Tokens more: the values of the layer by name, `[..., width]`."""
        gates = by_token(values[self.routing.gates])
        norms = [np.linalg.norm(by_token(values[name]), axis=1) for name in self.routing.outputs]
        norm = np.stack(norms, axis=1, dtype=np.float64) * (gates != 0)
        self.tokens += len(gates)
        self.counts += np.count_nonzero(gates, axis=0)
        self.gates += gates.sum(axis=0, dtype=np.float64)
        self.saliency += (gates * norm).sum(axis=0)
        self.norms += norm.sum(axis=0)

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors of a statistics file."""
        chosen = np.maximum(self.counts, 1)
        arrays: dict[str, np.ndarray] = {
            "tokens": np.array([self.tokens], np.int64),
            "counts": self.counts,
            "gates": self.gates.astype(np.float32),
            "saliency": (self.saliency / chosen).astype(np.float32),
            "norms": (self.norms / chosen).astype(np.float32),
        }
        return {f"experts.{self.routing.layer}.{part}": array for part, array in arrays.items()}


def read_experts(tensors: Mapping[str, Streamed]) -> dict[int, ExpertStatistics]:
    """By layer, from the tensors of a statistics file."""
    layers = [int(name.split(".")[1]) for name in tensors if name.startswith("experts.") and name.endswith(".tokens")]
    return {layer: _read(tensors, layer) for layer in layers}


def by_token(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def _read(tensors: Mapping[str, Streamed], layer: int) -> ExpertStatistics:
    def vector(part: str) -> np.ndarray:
        tensor = tensors[f"experts.{layer}.{part}"]
        return tensor.read(0, tensor.dims[0])

    return ExpertStatistics(int(vector("tokens")[0]), *map(vector, PARTS))
