"""exporters, optimum: the weights of an exported graph, found again in the checkpoint by what they hold."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.tensors import Streamed, cast, transpose

SMALLEST = 8  # elements; what is smaller is found everywhere


@dataclass
class Weights:
    """The tensors of a checkpoint in float32, by shape."""

    checkpoint: Checkpoint
    by_shape: dict[tuple[int, ...], list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_shape = {}
        for name, tensor in self.checkpoint.tensors.items():
            self.by_shape.setdefault(tensor.dims, []).append(name)

    def find(self, tensor: Streamed, path: str) -> tuple[str, Streamed] | None:
        """The name of the checkpoint's tensor that holds these numbers, as it lies or turned, and a view of it.

        Of several it is the one whose name is closest to the `path` in the model.
        """
        if tensor.dtype != ir.DataType.FLOAT or tensor.size < SMALLEST:
            return None
        candidates = self._candidates(tensor.dims)
        for name, view in sorted(candidates, key=lambda each: -_common_end(each[0], path)):
            if _equal(view, tensor):
                return name, view
        return None

    def _candidates(self, dims: tuple[int, ...]) -> Iterator[tuple[str, Streamed]]:
        for name in self.by_shape.get(dims, ()):
            yield name, self._float(name)
        if len(dims) == 2:
            for name in self.by_shape.get(dims[::-1], ()):
                yield name, transpose(self._float(name))

    def _float(self, name: str) -> Streamed:
        return cast(self.checkpoint.tensors[name], ir.DataType.FLOAT)


def _common_end(name: str, path: str) -> int:
    """How many of their last parts are the same."""
    count = 0
    for a, b in zip(reversed(name.split(".")), reversed(path.split(".")), strict=False):
        if a != b:
            break
        count += 1
    return count


def _equal(view: Streamed, tensor: Streamed) -> bool:
    """Whether two tensors hold the same numbers; most of those that do not differ in the first one."""
    if _corner(view) != _corner(tensor):
        return False
    return all(np.array_equal(view.read(a, b), tensor.read(a, b)) for a, b in view.blocks())


def _corner(tensor: Streamed) -> float:
    base = tensor
    while isinstance(inner := getattr(base, "base", None), Streamed):
        base = inner
    return float(base.read(0, 1).flat[0])
