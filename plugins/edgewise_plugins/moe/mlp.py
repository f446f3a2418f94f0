"""plugins, moe: one dense MLP, what a text makes of it, and the mixture that is put in its place."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.calibration.gram import add_gram, mirror, product
from edgewise.calibration.routing import by_token
from edgewise.calibration.walk import Walk
from edgewise.errors import GraphError, OptionError
from edgewise.graph import Linear, Roles
from edgewise.tensors import Streamed, constant
from edgewise_plugins.moe.build import Unit, put_mixture
from edgewise_plugins.moe.contributions import RouterFit, chosen
from edgewise_plugins.moe.split import Split, split
from edgewise_plugins.prune.eliminate import Moments, Refit, refit
from edgewise_plugins.quantize.drift import in_step, stream_after
from edgewise_plugins.views import take_columns, take_rows

SAMPLE = 4096  # tokens that neurons are clustered by


@dataclass(frozen=True)
class Mlp:
    """The MLP of a layer."""

    number: int
    gate: Linear
    up: Linear
    down: Linear

    @classmethod
    def of(cls, roles: Roles, by_node: Mapping[ir.Node, Linear], number: int) -> "Mlp | None":
        """None where the layer has none. Raises GraphError for one that cannot be cut."""
        nodes = [roles.maybe(f"mlp.{part}", number) for part in ("gate", "up", "down")]
        if not all(node in by_node for node in nodes):
            return None
        if roles.maybe("mlp.gate.bias", number) or roles.maybe("mlp.up.bias", number):
            raise GraphError(f"the MLP of layer {number} has biases, which experts are not given")
        return cls(number, *(by_node[node] for node in nodes if node))

    @property
    def width(self) -> int:
        return self.down.matrix.dims[1]

    def refuse(self, slices: int) -> None:
        """Raises OptionError where the neurons cannot be cut into so many slices."""
        if self.width % slices:
            raise OptionError(
                f"experts: {slices} slices do not divide the {self.width:,} neurons of layer {self.number}"
            )

    def any_split(self, slices: int, shared: int) -> Split:
        """Neurons in their order, for a plan."""
        size = self.width // slices
        parts = np.arange(self.width).reshape(slices, size)
        return Split(parts[:shared].ravel(), tuple(parts[shared:]))

    def split(self, walk: Walk, slices: int, shared: int, active: int) -> Split:
        """The neurons dealt out by what the text makes of them."""
        weights = np.linalg.norm(self._weights(), axis=0)
        parts: list[np.ndarray] = []
        for values in walk.values(self.number, [self._neurons]):
            parts.append(np.abs(by_token(values[self._neurons])) * weights)
            if sum(map(len, parts)) >= SAMPLE:
                break
        return split(np.concatenate(parts), slices, shared, active)

    def router(self, walk: Walk, dealt: Split) -> np.ndarray:
        """`[experts, hidden]`."""
        weights = self._weights()
        fit = RouterFit([weights[:, own] for own in dealt.routed], self.gate.matrix.dims[1])
        for values in walk.values(self.number, [self._entering, self._neurons]):
            h = by_token(values[self._neurons])
            fit.add(by_token(values[self._entering]), [h[:, own] for own in dealt.routed])
        return fit.router()

    def refitted(
        self, walk: Walk, along: Walk, dealt: Split, router: np.ndarray, active: int, *, damping: float
    ) -> Refit:
        """`down` for neurons that are 0 where their expert is not chosen, and a bias."""
        weights, sums = self._weights(), Sums(self.down.matrix.dims)
        to_stream = stream_after(self.down) is not None
        inputs = walk.values(self.number, [self._entering])
        for (h, difference), values in zip(in_step(walk, along, self.number, [self.down]), inputs, strict=True):
            wanted = h @ weights.T + difference if to_stream else (h + difference) @ weights.T
            left = h * _spread(dealt, chosen(by_token(values[self._entering]), router, active))
            sums.add(left, wanted)
        neurons = np.arange(self.width)
        return refit(sums.moments(weights), neurons[:, None], neurons, damping=damping)

    def put(self, model: ir.Model, dealt: Split, router: np.ndarray, active: int, down: Refit | None) -> None:
        """A mixture in its place."""
        columns = self.down.matrix if down is None else constant(down.weights)
        shared = self._unit(columns, dealt.shared) if len(dealt.shared) else None
        experts = [self._unit(columns, own) for own in dealt.routed]
        put_mixture(model, self.number, shared, experts, router, active, None if down is None else down.bias)

    def _unit(self, down: Streamed, own: np.ndarray) -> Unit:
        return Unit(take_rows(self.gate.matrix, own), take_rows(self.up.matrix, own), take_columns(down, own))

    def _weights(self) -> np.ndarray:
        return self.down.matrix.numpy().astype(np.float32)

    @property
    def _entering(self) -> str:
        return _name(self.gate)

    @property
    def _neurons(self) -> str:
        return _name(self.down)


class Sums:
    """Second moments and means over tokens, a chunk at a time."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        rows, columns = shape
        self.tokens = 0
        self.gram, self.target = np.zeros((columns, columns), np.float32), np.zeros((rows, columns), np.float32)
        self.x, self.y = np.zeros(columns), np.zeros(rows)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        add_gram(self.gram, x)
        self.target += product(np.ascontiguousarray(y), x)
        self.x += x.sum(axis=0, dtype=np.float64)
        self.y += y.sum(axis=0, dtype=np.float64)
        self.tokens += len(x)

    def moments(self, weights: np.ndarray) -> Moments:
        mirror(self.gram)
        n = self.tokens
        return Moments(weights, self.gram / n, self.target / n, self.x / n, self.y / n)


def _spread(dealt: Split, chosen: np.ndarray) -> np.ndarray:
    """1 for each neuron of an expert that a token is given to, and for shared ones, `[tokens, neurons]`."""
    width = len(dealt.shared) + sum(map(len, dealt.routed))
    found = np.ones((len(chosen), width), np.float32)
    for index, own in enumerate(dealt.routed):
        found[:, own] = chosen[:, index, None]
    return found


def _name(linear: Linear) -> str:
    value = linear.node.inputs[0]
    assert value is not None
    return str(value.name)
