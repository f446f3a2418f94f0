"""sdk, runtime: a graph that gives keys and values of new tokens only: they are written behind those that a row holds.

A token sees what comes before it by a bias that is added to its scores: 0, or `MASKED`; or the graph knows it itself,
and reads as many of the positions that the mask has more than there are new tokens. Lengths are free, or fixed: then
prompts are computed a piece at a time by a graph without scores, padded on the right, and what is scored one by one.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.runtime import ring
from edgewise.runtime.memory import Memory
from edgewise.runtime.ort import in_place
from edgewise.runtime.signature import HIDDEN, KEEP, MASK, Signature

if TYPE_CHECKING:
    from edgewise.runtime.model import Model

MASKED = -10_000.0  # what is added so is as good as nothing in a softmax, and is a number in float16
ROOM = 256  # tokens of a row that arrays which stay bound have room for: a piece of a prompt, drafts, single ones

Floats = NDArray[np.float32]


class Appended:
    """A model's graphs on the keys and values of a row, each `[1, heads, capacity, dim]`, which outlive it.

    `values` are buffers as they lie in the memory of the model's graphs; what is elsewhere is copied there in each run.
    """

    def __init__(self, model: "Model", buffers: Sequence[NDArray[Any]], values: Sequence[Any] = ()) -> None:
        self._model = model
        self._buffers = buffers
        self._values = values
        self._steps: OrderedDict[tuple[bool, int, bool], Step] = OrderedDict()  # the last used last

    def run(
        self,
        lengths: Sequence[int],  # that the one row holds
        ids: NDArray[np.int64],  # [1, tokens], that come after it
        logits: Floats,  # [1, scores, vocabulary], of the last tokens: written
        hidden: Floats | None = None,  # [1, tokens, hidden size]: written
    ) -> None:
        """Compute tokens, and write their keys and values into the buffers."""
        count, scores = ids.shape[1], logits.shape[1]
        for start, stop, prompt in self._pieces(count, scores):
            scored = logits[:, max(0, start + scores - count) : max(0, stop + scores - count)]
            states = None if hidden is None else hidden[:, start:stop]
            step = self._step(prompt, stop - start, hidden is not None)
            step.run(lengths[0] + start, ids[:, start:stop], scored, states)

    def _pieces(self, count: int, scores: int) -> Iterator[tuple[int, int, bool]]:
        """What is computed at once: from where to where, and whether by the graph of prompts."""
        model, start = self._model, 0
        if not model.fixed:
            yield 0, count, model.prompts is not None and count >= model.prefill_from
            return
        while start < count:
            left = count - scores - start  # that need no scores
            prompt = model.prompts is not None and left >= max(1, model.prefill_from)
            stop = start + (min(left, model.width) if prompt else 1)
            yield start, stop, prompt
            start = stop

    def _step(self, prompt: bool, count: int, hidden: bool) -> "Step":
        """A graph on this row, for so many tokens, or as many as it always takes; with hidden states or without."""
        model = self._model
        graph, signature = model.graph, model.signature
        if prompt:
            assert model.prompt_signature is not None
            graph, signature = model.prompts, model.prompt_signature
        key = prompt, signature.width or count, hidden
        if key not in self._steps:
            while self._steps and sum(width for _, width, _ in self._steps) + key[1] > ROOM:
                self._steps.popitem(last=False)
            self._steps[key] = Step(graph, signature, self._buffers, self._values, model, width=key[1])
        self._steps.move_to_end(key)
        return self._steps[key]


class Step:
    """A graph for a number of tokens, bound once to arrays of that length: it is run on what is written into them."""

    def __init__(
        self,
        graph: Any,
        signature: Signature,
        buffers: Sequence[NDArray[Any]],
        values: Sequence[Any],
        model: "Model",
        *,
        width: int,
    ) -> None:
        self.graph, self.signature, self.buffers, self.width = graph, signature, buffers, width
        self.order, self.last = np.arange(width), (model.capacity or buffers[0].shape[2]) - 1
        self._spare = np.zeros((1, 0, model.facts.vocab_size), np.float32)
        self._ones = model.ones if MASK in signature.inputs else None
        self._inputs = self._make_inputs(model, values or list(map(in_place, buffers)))
        self._copied = self._read_when_bound(model.memory, in_memory=bool(values))
        self.new, self._outputs = self._make_outputs(model.memory)
        self.binding = graph.io_binding()
        for name, value in self._inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self.binding.bind_ortvalue_output(name, value)

    def _make_inputs(self, model: "Model", pasts: Sequence[Any]) -> dict[str, Any]:
        """What the graph reads, by name, on arrays that stay; of some of them a graph has no input."""
        memory, signature, shape = model.memory, self.signature, (1, self.width)
        self.ids, ids = memory.zeros(shape, signature.ids)
        self.positions, positions = memory.zeros(shape, signature.ids)
        self.keep, keep = memory.hold(np.ones(1, np.int64))
        slots = {a.window: keys.shape[2] for a, keys in zip(model.facts.attention, self.buffers[::2], strict=True)}
        windows = signature.biases.items()
        self.biases = {name: Bias(window, self.width, slots[window], memory) for name, window in windows}
        made = {
            "input_ids": ids,
            "position_ids": positions,
            KEEP: keep,
            **{name: memory.hold(table)[1] for name, table in (model.rotary | model.crossed).items()},
            **{name: bias.value for name, bias in self.biases.items()},
            **dict(zip((each.past for each in signature.cache), pasts, strict=True)),
        }
        return {name: value for name, value in made.items() if name in signature.inputs}

    def _make_outputs(self, memory: Memory) -> tuple[list[NDArray[Any]], dict[str, Any]]:
        """Arrays for the keys and values of new tokens, and the values on them by name."""
        cache = self.signature.cache
        new = [memory.zeros((1, each.heads, self.width, each.dim), each.dtype) for each in cache]
        return [array for array, _ in new], {each.present: value for each, (_, value) in zip(cache, new, strict=True)}

    def _read_when_bound(self, memory: Memory, *, in_memory: bool) -> list[str]:
        """Inputs that are copied when they are bound, so bound in each run: what is held, or all of them."""
        if memory.apart:
            return list(self._inputs)
        return [] if in_memory or memory.ordinary else [each.past for each in self.signature.cache]

    def run(self, length: int, ids: NDArray[np.int64], logits: Floats, hidden: Floats | None) -> None:
        """Compute tokens, up to as many as it is wide, that come after `length` others; `logits` are of the last."""
        count = ids.shape[1]
        self.ids[:, :count] = ids
        np.minimum(self.order + length, self.last, out=self.positions[0], casting="same_kind")  # padding, too, has one
        for bias in self.biases.values():
            bias.show(length)
        if self._ones is not None:
            mask = self._ones[:, : length + self.width]
            self.binding.bind_input(MASK, "cpu", 0, np.int64, mask.shape, mask.ctypes.data)
        for name in self._copied:
            self.binding.bind_ortvalue_input(name, self._inputs[name])
        scores = self._bind_scores(logits)
        if hidden is not None:
            self.binding.bind_output(HIDDEN, "cpu", 0, np.float32, hidden.shape, hidden.ctypes.data)
        self.graph.run_with_iobinding(self.binding)
        if scores is not logits and logits.size:
            logits[...] = scores[:, -logits.shape[1] :]
        for buffer, new in zip(self.buffers, self.new, strict=True):
            ring.put(buffer, length, new[:, :, :count])

    def _bind_scores(self, logits: Floats) -> Floats:
        """Where the graph writes scores: there where they are wanted, if it gives as many and no more."""
        if "logits" not in self.signature.outputs:
            return logits
        given = self.width
        if KEEP in self.signature.inputs:
            given = self.keep[0] = max(1, logits.shape[1])
        if logits.shape[1] != given:
            if self._spare.shape[1] != given:
                self._spare = np.zeros((1, given, self._spare.shape[2]), np.float32)
            logits = self._spare
        self.binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return logits


class Bias:
    """What tokens see, `array [1, 1, tokens, slots + tokens]`: of what is held, where it lies, and of themselves.

    With a window, the latest so many positions, their own among them.
    """

    def __init__(self, window: int | None, width: int, slots: int, memory: Memory | None = None) -> None:
        self.window = window
        masked: Floats = np.full((1, 1, width, slots + width), MASKED, np.float32)
        self.array: Floats
        self.array, self.value = memory.hold(masked) if memory else (masked, in_place(masked))
        self.tokens = np.arange(width)[:, None]
        behind = self.tokens - np.arange(width)  # how far each comes before each
        own = (behind >= 0) & (behind < (window or width))
        self.array[0, 0, :, slots:][own] = 0
        self._held = self.array[0, 0, :, :slots]
        self._shown = (0, 0)

    def show(self, length: int) -> None:
        """So many positions are held. Only what differs from the last time is written."""
        start, stop = self._shown
        first = 0 if self.window is None else max(0, length - self.window + 1)
        if self.window is None:
            self._held[:, stop:length] = 0
            self._held[:, length:stop] = MASKED
        else:
            slots, seen = self._held.shape[1], np.arange(first, length)
            self._held[:, np.arange(start, stop) % slots] = MASKED
            behind = length + self.tokens - seen
            self._held[:, seen % slots] = np.where(behind < self.window, 0, MASKED)
        self._shown = first, length
