"""sdk, runtime: the keys and values of several sequences of one model, in slots side by side."""

from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import ContextOverflow, GenerationError
from edgewise.memory import available_memory
from edgewise.runtime import ring
from edgewise.runtime.appended import Appended
from edgewise.runtime.bound import Bound, place
from edgewise.runtime.captured import Captured
from edgewise.runtime.mirror import Mirror
from edgewise.runtime.model import Model

BOUNDS = 64  # ranges of slots that stay bound; to bind one again takes less than a millisecond

_computations = count(1)  # over all pools: next() is atomic


class Slot:
    """What one sequence holds, and where: `pool.buffers[...][index]`.

    `origins` tells which computation made each position: where those of two slots are the same, so are their keys and
    values, to the bit; slots of the same tokens need not be. Rings remember the last positions before `reached`.
    """

    def __init__(self, index: int, capacity: int) -> None:
        self.index = index
        self.length = self.reached = 0  # tokens that it holds, and that it held at most, since it was empty
        self.forgotten = 0  # tokens that it held once, after those that are first
        self.tokens = np.zeros(capacity, np.int64)
        self.origins = np.zeros(capacity, np.int64)

    def hold(self, tokens: NDArray[np.int64]) -> None:
        """These tokens have been computed, and come after those that were there."""
        end = self.length + len(tokens)
        self.tokens[self.length : end] = tokens
        self.origins[self.length : end] = next(_computations)
        self.length = end
        self.reach(end)

    def reach(self, length: int) -> None:
        """So many tokens are there, or about to be: what rings have is about these."""
        self.reached = max(self.reached, length)

    def clear(self) -> None:
        """Hold nothing."""
        self.length = self.reached = self.forgotten = 0

    def shared(self, other: "Slot", length: int) -> int:
        """How many of the first positions, up to `length`, are the same computation in both."""
        end = min(self.length, other.length, length)
        different = self.origins[:end] != other.origins[:end]
        return int(different.argmax()) if different.any() else end

    def grow(self, capacity: int) -> None:
        for name in ("tokens", "origins"):
            array = np.zeros(capacity, np.int64)
            array[: self.length] = getattr(self, name)[: self.length]
            setattr(self, name, array)


class Pool:
    """Slots of `capacity` tokens each; both their number and their capacity at least double when they grow.

    A layer's keys, `[slots, heads, capacity, dim]`, are one buffer: slots side by side are the memory of a batch, and
    one slot that of a batch of one. Where lengths are fixed, a layer with a window may have a ring instead, which holds
    the last positions. A pool belongs to one thread at a time.
    """

    def __init__(self, model: Model, *, capacity: int, slots: int = 1) -> None:
        self.model = model
        self.capacity = 0
        self.slots: list[Slot] = []  # by their index
        self.free: set[Slot] = set()
        self.copied = 0  # bytes of keys and values, from slot to slot so far
        self._buffers: list[NDArray[Any]] = []
        self._values: list[Any] = []  # which the buffers are the memory of
        self._mirror: Mirror | None = None  # on a device that has memory of its own
        self.logits: NDArray[np.float32]  # [slots, 1, vocabulary]: after the last token of each
        self._bounds: dict[tuple[int, int, bool, bool, bool], Bound | Appended | Captured] = {}
        self._allocate(capacity, slots)

    @property
    def bytes(self) -> int:
        """Memory of the keys and values; what has never been used of it is not resident."""
        return sum(buffer.nbytes for buffer in self._buffers)

    @property
    def buffers(self) -> list[NDArray[Any]]:
        """Keys and values to be read: one for each of `model.cache`, `[slots, heads, capacity, dim]`."""
        if self._mirror:
            self._mirror.read()
        return self._buffers

    def writable(self) -> list[NDArray[Any]]:
        """The same, to be written."""
        buffers = self.buffers
        if self._mirror:
            self._mirror.written()
        return buffers

    def hidden(self, count: int) -> NDArray[np.float32]:
        """Room for the hidden states of so many tokens."""
        return np.empty((count, self.model.facts.hidden_size), np.float32)

    def take(self, like: Slot | None = None, length: int = 0) -> Slot:
        """A free slot; one that has most in common with the first `length` positions of another, if that is given."""
        if not self.free:
            self.reserve_slots(1)
        slot = max(self.free, key=lambda slot: (slot.shared(like, length) if like else 0, -slot.index))
        self.free.remove(slot)
        if like is None:
            slot.clear()
        return slot

    def give(self, slot: Slot) -> None:
        """Take a slot back; what it holds stays until it is taken again."""
        self.free.add(slot)

    def reserve(self, tokens: int) -> None:
        """Make each slot hold so many; ContextOverflow where the model does not."""
        if tokens > self.model.context:
            fixed = ", which its graphs were compiled for; build it with more" if self.model.fixed else ""
            raise ContextOverflow(f"{tokens} tokens do not fit in the context of {self.model.context}{fixed}")
        if tokens > self.capacity:
            self._allocate(min(self.model.context, max(tokens, 2 * self.capacity)), len(self.slots))

    def reserve_slots(self, free: int) -> None:
        """Have so many free slots."""
        if missing := max(0, free - len(self.free)):
            check_memory(self.model, missing, self.capacity)
            self._allocate(self.capacity, len(self.slots) + max(missing, len(self.slots)))

    def follow(self, slot: Slot, source: Slot, pool: "Pool", length: int) -> None:
        """Make a slot hold the first `length` positions of one of this or another pool; copies what it does not yet."""
        self.reserve(length)
        start = slot.shared(source, length)
        for mine, theirs, tensor in zip(self.writable(), pool.buffers, self.model.cache, strict=True):
            first = start
            if tensor.window is not None:  # what either of them has no more is not shared
                first = max(start if slot.reached <= source.reached else 0, source.reached - tensor.slots)
            self.copied += ring.copy(mine[slot.index], theirs[source.index], first, length)
        slot.tokens[start:length] = source.tokens[start:length]
        slot.origins[start:length] = source.origins[start:length]
        slot.length, slot.forgotten = length, source.forgotten
        slot.reached = source.reached if length else 0

    def forget(self, slot: Slot, start: int, stop: int, moved: Callable[[int, NDArray[Any]], NDArray[Any]]) -> None:
        """Forget these positions of a slot. What comes after them takes their place, as `moved` makes it.

        It is given the number of a buffer, and what moves: `[heads, positions, dim]`, of the last positions.
        """
        end, reached = slot.length, 0
        for number, (buffer, tensor) in enumerate(zip(self.writable(), self.model.cache, strict=True)):
            first = 0 if tensor.window is None else max(0, slot.reached - tensor.slots)  # that is remembered
            last = min(end, max(first, stop))
            known = moved(number, ring.get(buffer[slot.index], last, end))
            ring.put(buffer[slot.index], last - (stop - start), known)
            if first:
                reached = max(reached, tensor.slots + (first if first <= start else last - (stop - start)))
        tokens = slot.tokens[stop:end].copy()
        slot.length, slot.reached = start, reached
        slot.hold(tokens)
        slot.forgotten += stop - start

    def move(self, slot: Slot, index: int) -> None:
        """Bring what a slot holds to the place of a free one."""
        other = self.slots[index]
        self.follow(other, slot, self, slot.length)  # now they hold the same, and either can be the other
        self.slots[slot.index], self.slots[index] = other, slot
        slot.index, other.index = index, slot.index

    def pack(self, slots: Collection[Slot]) -> None:
        """Bring slots nearer to each other, where free places between them allow it, and it is of use."""
        if self.model.appends:
            return
        taken = {slot.index for slot in slots}
        free = {slot.index for slot in self.free}
        while gaps := [index + 1 for index in taken if index + 1 in free and index + 1 < max(taken)]:
            last = max(taken)
            self.move(self.slots[last], gaps[0])
            taken, free = taken - {last} | {gaps[0]}, free - {gaps[0]} | {last}

    def run(
        self,
        slots: Sequence[Slot],
        ids: NDArray[np.int64],
        logits: NDArray[np.float32],
        hidden: NDArray[np.float32] | None,
    ) -> None:
        """Append `ids`, `[slots, tokens]`, to slots that lie side by side, in order of their index.

        Only one slot at a time can be given more than a token. Arrays as `Bound.run` has them.
        """
        model = self.model
        for slot in slots:
            slot.reach(slot.length + ids.shape[1])
        if model.appends:
            for row, slot in enumerate(slots):
                states = None if hidden is None else hidden[row : row + 1]
                bound = self.bound(slot.index, slot.index + 1)
                bound.run([slot.length], ids[row : row + 1], logits[row : row + 1], states)
        else:
            if self._mirror:
                self._mirror.compute()
            prompt = model.prompts is not None and ids.shape[1] >= model.prefill_from
            captured = model.captures and ids.shape[1] == 1 and hidden is None and not prompt
            start, stop = slots[0].index, slots[-1].index + 1
            bound = self.bound(start, stop, prompt=prompt, hidden=hidden is not None, captured=captured)
            lengths = [slot.length for slot in slots]
            if model.singly and lengths[0] and ids.shape[1] > 1:
                _run_singly(bound, lengths[0], ids, logits, hidden)
            else:
                bound.run(lengths, ids, logits, hidden)

    def bound(
        self, start: int, stop: int, *, prompt: bool = False, hidden: bool = False, captured: bool = False
    ) -> Bound | Appended | Captured:
        """A graph on a range of slots: the one that decodes, or that of prompts. It is valid until the pool grows.

        Where graphs append, it is both of them, on one slot.
        """
        key, model = (start, stop, prompt, hidden, captured), self.model
        if key not in self._bounds:
            if len(self._bounds) == BOUNDS:
                self._bounds.clear()
            buffers = [buffer[start:stop] for buffer in self._buffers]
            if model.appends:
                self._bounds[key] = Appended(model, buffers, self._values if len(self.slots) == 1 else ())
            else:
                places = self._mirror.places(start, stop) if self._mirror else list(map(place, buffers))
                graph = model.prompts if prompt else model.graph
                self._bounds[key] = Captured(model, graph, places) if captured else Bound(model, graph, places)
        return self._bounds[key]

    def _allocate(self, capacity: int, slots: int) -> None:
        """Buffers of another size, with what is held."""
        if not 0 < capacity <= max(self.model.context, self.model.capacity):
            raise ContextOverflow(f"a session of {capacity} tokens does not fit in the context of {self.model.context}")
        capacity = self.model.capacity or capacity
        held = [slot for slot in self.slots if slot not in self.free]
        old, buffers, values = self.buffers, list[NDArray[Any]](), list[Any]()
        for i, tensor in enumerate(self.model.cache):
            size = tensor.slots or capacity
            buffer, value = self.model.memory.zeros((slots, tensor.heads, size, tensor.dim), tensor.dtype)
            for slot in held:
                kept = min(slot.length, size) if tensor.window is None else size
                buffer[slot.index, :, :kept] = old[i][slot.index, :, :kept]
            buffers.append(buffer)
            values.append(value)
        for slot in self.free:
            slot.clear()
        for slot in self.slots:
            slot.grow(capacity)
        new = [Slot(index, capacity) for index in range(len(self.slots), slots)]
        self.slots += new
        self.free |= set(new)
        self._buffers, self._values, self.capacity = buffers, values, capacity
        apart = self.model.memory.apart and not self.model.appends
        self._mirror = Mirror(self.model.memory, buffers) if apart else None
        self.logits = np.zeros((slots, 1, self.model.facts.vocab_size), np.float32)
        self._bounds.clear()


def check_memory(model: Model, slots: int, capacity: int) -> None:
    """Raises GenerationError where so many slots more of `capacity` tokens, full, are more than there is memory for."""
    cache = sum(each.heads * (each.slots or capacity) * each.dim * each.dtype.itemsize for each in model.cache)
    needed, available = slots * (cache + 4 * model.facts.vocab_size), available_memory()
    if available is not None and needed > available:
        raise GenerationError(
            f"{slots:,} more rows of {capacity:,} tokens take {needed >> 20:,} MiB, and {available >> 20:,} MiB of "
            "memory are available; ask for fewer samples or beams, or fewer tokens"
        )


def _run_singly(
    bound: Bound | Appended | Captured,
    length: int,
    ids: NDArray[np.int64],
    logits: NDArray[np.float32],
    hidden: NDArray[np.float32] | None,
) -> None:
    """The tokens of one row after each other. What is scored comes last; before that, the first of it is a spare."""
    for at in range(ids.shape[1]):
        row = max(0, at - ids.shape[1] + logits.shape[1])
        states = None if hidden is None else hidden[:, at : at + 1]
        bound.run([length + at], ids[:, at : at + 1], logits[:, row : row + 1], states)
