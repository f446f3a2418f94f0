"""exporters, decoder: the way back: experts as columns of stacks, where gates and ups take turns: see `stacks.py`."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgewise.tensors import Streamed

Experts = Sequence[Streamed]  # of one layer: a matrix `[out, in]` or a bias `[out]` of each, in order


def columns(path: str, parts: Mapping[tuple[str, str], Experts]) -> Iterator[tuple[str, Streamed]]:
    """The stacks of a layer by name; `parts` are its experts by role, and by what they are: weight or bias."""
    for kind, suffix in (("weight", ""), ("bias", "_bias")):
        if ("expert.down", kind) in parts:
            yield _stack(f"{path}.gate_up_proj{suffix}", parts["expert.gate", kind], parts["expert.up", kind])
            yield _stack(f"{path}.down_proj{suffix}", parts["expert.down", kind])


def _stack(name: str, *sides: Experts) -> tuple[str, Streamed]:
    """One tensor of the columns of each expert; of two sides, in turns."""
    dims = sides[0][0].dims
    shape = (len(sides[0]), *reversed(dims[1:]), dims[0] * len(sides))

    def read(start: int, stop: int) -> np.ndarray:
        experts = [np.stack([side[number].numpy().T for side in sides], axis=-1) for number in range(start, stop)]
        return np.stack(experts).reshape(stop - start, *shape[1:])

    return name, Streamed(shape, ir.DataType.FLOAT, read, name=name)
