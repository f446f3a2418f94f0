"""sdk, runtime: where positions are in a buffer of keys or values: one after the other, or in a ring.

A layer that looks back a window needs no more of what was than that. In a ring of so many slots, position p is in slot
`p % slots`, in the place of one that the layer no longer looks back on. A buffer for the whole context never comes
around.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def spans(start: int, stop: int, slots: int) -> Iterator[tuple[slice, slice]]:
    """Slices of a buffer, and those of an array of these positions that belong there; the last ones, where it is full.

    >>> list(spans(6, 9, 8))
    [(slice(6, 8, None), slice(0, 2, None)), (slice(0, 1, None), slice(2, 3, None))]
    """
    at = max(start, stop - slots)
    while at < stop:
        slot = at % slots
        count = min(stop - at, slots - slot)
        yield slice(slot, slot + count), slice(at - start, at - start + count)
        at += count


def put(buffer: Array, start: int, values: Array) -> None:
    """Write values `[..., positions, dim]`, the first of them of position `start`, to a buffer `[..., slots, dim]`."""
    for there, here in spans(start, start + values.shape[-2], buffer.shape[-2]):
        buffer[..., there, :] = values[..., here, :]


def get(buffer: Array, start: int, stop: int) -> Array:
    """A copy of what a buffer `[..., slots, dim]` has of positions, no more than its slots: `[..., positions, dim]`."""
    values = np.empty((*buffer.shape[:-2], stop - start, buffer.shape[-1]), buffer.dtype)
    for there, here in spans(start, stop, buffer.shape[-2]):
        values[..., here, :] = buffer[..., there, :]
    return values


def copy(buffer: Array, other: Array, start: int, stop: int) -> int:
    """Copy positions from one buffer to another of as many slots, or that both hold from the first on; bytes of it."""
    count = 0
    for slots, _ in spans(start, stop, buffer.shape[-2]):
        part = other[..., slots, :]
        buffer[..., slots, :] = part
        count += part.nbytes
    return count


@dataclass(frozen=True)
class Rings:
    """What the rings of a model remember: `sizes` are their windows and slots. Without any, all is remembered."""

    sizes: frozenset[tuple[int, int]] = frozenset()

    def first(self, reached: int) -> int:
        """The first position that all of them have, where there have been so many tokens."""
        return max((reached - slots for _, slots in self.sizes if reached > slots), default=0)

    def suffice(self, length: int, reached: int) -> bool:
        """Whether all is there that a token looks back on, after `length` tokens, where there have been `reached`."""
        return all(reached - slots <= max(0, length - window + 1) for window, slots in self.sizes)
