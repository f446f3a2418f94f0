"""sdk, calibration: the canonical graph run layer by layer: one layer's weights in memory, hidden states on disk."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgewise.calibration.hidden import Hidden
from edgewise.calibration.routing import by_token, routing
from edgewise.calibration.run import Loaded, read_rows, read_whole
from edgewise.calibration.stages import BATCH_TOKENS, cut, linears_by_input, values_of
from edgewise.errors import GraphError, OptionError
from edgewise.facts import Facts
from edgewise.floats import is_finite
from edgewise.graph import Linear, get_facts, linears
from edgewise.graph import layer as layer_of
from edgewise.rotary import table
from edgewise.tensors import Streamed, streamed
from edgewise.writer import Progress

LOGIT_TOKENS = 256  # as many rows as wide as the vocabulary

Observer = Callable[[Sequence[Linear], np.ndarray], None]
Values = Mapping[str, np.ndarray]  # what a layer computes, by name
Watcher = Callable[[Values], None]


class Walk:
    """A model on some sequences, one layer after the other.

    `observe` shows what enters the linears of a layer, `advance` goes on to the next one. Both use the weights that
    the model has when they are called: layers see what was replaced in the layers before them.

    >>> walk = Walk(model, sequences, folder=folder)
    >>> for layer in walk.layers:
    ...     walk.observe(layer, collect)       # collect(linears, x): x float32 [tokens, in_features], chunk by chunk
    ...     quantize(model, layer)
    ...     walk.advance(layer)
    >>> walk.observe(walk.head, collect)       # what enters the lm_head
    >>> for logits in walk.logits(): ...       # float32 [tokens, vocabulary], chunk by chunk

    sequences: int64 `[n, length]`, no padding.
    folder: holds the hidden states, of three layers at most unless all are kept.
    context: of the session that is to run the model; it matters where rotary tables follow it.
    start: the layer to begin at, with the hidden states that an earlier walk left in the folder.
    keep: whether the hidden states of all layers stay there; those that are there already are not computed again.
    """

    def __init__(
        self,
        model: ir.Model,
        sequences: np.ndarray,
        *,
        folder: Path,
        context: int | None = None,
        start: int = 0,
        keep: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.folder, self.context, self.progress = model, folder, context, progress
        self.keep = keep
        self.facts, self.routing = get_facts(model), routing(model)
        _check_layers(self.facts)
        self.sequences = sequences
        _check(sequences, self.facts.vocab_size, self.facts.context_length)
        self.layers = range(self.facts.layers)
        self.head = self.facts.layers  # a step of its own: the final norm, and the lm_head
        self.position = start  # the layer whose input is at hand
        shape = (*self.sequences.shape, self.facts.hidden_size)
        self.hidden = Hidden(folder / f"hidden.{start}", shape)
        self.before: Hidden | None = None  # kept until the next one is left behind: whoever is killed can go on from it
        if not (start or self._is_kept(self.hidden)):
            self.hidden.write(self._embedded())

    def inputs(self, layer: int) -> dict[str, list[Linear]]:
        """What enters the linears of a layer, or of the head: the name of each value, and the linears that share it."""
        return linears_by_input(self.model).get(None if layer == self.head else layer, {})

    def observe(self, layer: int, observer: Observer) -> None:
        """Show each distinct input of the linears of a layer, with the linears that share it.

        Those of an expert see the tokens that are given to it; where there are none in a chunk, nothing is shown.
        """
        for _ in self._run(layer, observer):
            pass

    def values(self, layer: int, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """What enters a layer or is computed in it under these names, batch by batch: `[sequences, length, width]`."""
        entering = f"hidden.{layer}"
        wanted = [self._value(name) for name in names if name != entering]
        loaded = self._load(wanted, layer) if wanted else None
        for start, stop in self._batches():
            found = {entering: self.hidden.read(start, stop)}
            if loaded:
                found |= loaded({**self._inputs(start, stop), **found})
            for name in names:
                self._check_finite(found[name], f"'{name}'")
            yield {name: found[name] for name in names}

    def constants(self, layer: int) -> dict[str, np.ndarray]:
        """What the nodes of a layer read that is the same for all sequences: weights, tables, and masks `[1, ...]`."""
        nodes = [node for node in self.model.graph if layer_of(node) == layer]
        own = {value for node in nodes for value in node.outputs}
        read = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None and value not in own)
        found, names = {}, []
        for value in read:
            name = str(value.name)
            if value.is_initializer():
                found[name] = self._weight(name, streamed(value.const_value))
            elif not value.is_graph_input() and name != f"hidden.{layer}":
                names.append(name)
        first = next(self.values(layer, names)) if names else {}
        return found | {name: array[:1] for name, array in first.items()}

    def advance(
        self,
        layer: int,
        observer: Observer | None = None,
        *,
        watch: Sequence[str] = (),
        watcher: Watcher | None = None,
    ) -> None:
        """Replace the hidden states by what the layer makes of them; with an `observer`, observe on the way.

        A `watcher` is shown what the layer computes under the names `watch`, batch by batch.
        """
        if layer == self.head:
            raise GraphError("the walk is at the final norm and the lm_head: nothing follows but logits()")
        name = f"hidden.{layer + 1}"
        after = Hidden(self.folder / name, self.hidden.shape)
        if observer or watcher or not self._is_kept(after):
            after.write(self._run(layer, observer, name, watch=watch, watcher=watcher))
        if self.before and not self.keep:
            self.before.remove()
        self.before, self.hidden = self.hidden, after
        self.position += 1

    def logits(self) -> Iterator[np.ndarray]:
        """The logits of all tokens, sequence after sequence: float32 `[tokens, vocabulary]`, a chunk at a time."""
        loaded = self._load([self._value("logits")], self.head)
        for start, stop in self._batches():
            hidden = self.hidden.read(start, stop).reshape(1, -1, self.facts.hidden_size)
            for first in range(0, hidden.shape[1], LOGIT_TOKENS):
                chunk = hidden[:, first : first + LOGIT_TOKENS]
                logits = loaded({f"hidden.{self.head}": chunk})["logits"][0]
                self._check_finite(logits, "the logits")
                yield logits

    def _run(
        self,
        layer: int,
        observer: Observer | None,
        *leaving: str,
        watch: Sequence[str] = (),
        watcher: Watcher | None = None,
    ) -> Iterator[np.ndarray]:
        """The layer on all sequences; yields what leaves it, if that is asked for, batch by batch."""
        entering = f"hidden.{layer}"
        shared = list(self.inputs(layer).values()) if observer else []
        names = [*map(_input, shared), *(self._gates(group) for group in shared), *watch, *leaving]
        wanted = [self._value(name) for name in dict.fromkeys(names) if name and name != entering]
        loaded = self._load(wanted, layer) if wanted else None
        for start, stop in self._batches():
            values = {entering: self.hidden.read(start, stop)}
            if loaded:
                values |= loaded({**self._inputs(start, stop), **values})
            for group in shared:
                x = self.seen(group, values)
                self._check_finite(x, f"the input of '{group[0].name}'")
                if observer and len(x):
                    observer(group, x)
            if watcher:
                watcher(values)
            for name in leaving:
                self._check_finite(values[name], "what leaves it")
                yield values[name]
                self._report(stop)

    def seen(self, group: Sequence[Linear], values: Values) -> np.ndarray:
        """Of what a layer computed, what enters linears that share it: float32 `[tokens, K]`.

        That of an expert are the tokens which the layer's gates give to it; they must be among the values then.
        """
        x, gates = by_token(values[_input(group)]), self._gates(group)
        return x if gates is None else x[by_token(values[gates])[:, group[0].expert] != 0]

    def _gates(self, group: Sequence[Linear]) -> str | None:
        """The name of the gates that choose the tokens of an expert; None for linears that see all tokens."""
        layer = group[0].layer
        return None if layer is None or group[0].expert is None else self.routing[layer].gates

    def _embedded(self) -> Iterator[np.ndarray]:
        """What enters the first layer. Of the embedding only the rows are read that the sequences need."""
        rows, places = np.unique(self.sequences, return_inverse=True)
        places = places.reshape(self.sequences.shape)
        stage = cut(self.model, [self._value("hidden.0")], starts=[])
        tables = {linear.name for linear in linears(self.model) if linear.role == "embedding"}
        weights = {
            name: read_rows(tensor, rows) if name in tables else read_whole(tensor)
            for name, tensor in stage.weights.items()
        }
        loaded = Loaded(stage, self.folder, weights)
        for start, stop in self._batches():  # of the other inputs, learned positions are read
            yield loaded({**self._inputs(start, stop), "input_ids": places[start:stop]})["hidden.0"]

    def _load(self, outputs: Sequence[ir.Value], layer: int) -> Loaded:
        """What computes `outputs` from the hidden states that enter the layer."""
        if layer != self.position:
            raise GraphError(f"the walk is at layer {self.position}, not at layer {layer}; layers come in order")
        stage = cut(self.model, outputs, starts=[self._value(f"hidden.{layer}")])
        return Loaded(stage, self.folder, {name: self._weight(name, tensor) for name, tensor in stage.weights.items()})

    def _weight(self, name: str, tensor: Streamed) -> np.ndarray:
        kind, _, part = name.rpartition(".")
        rotary = self.facts.rotary.get(kind.removeprefix("rotary."))
        if not name.startswith("rotary.") or rotary is None:
            return read_whole(tensor)
        length = self.sequences.shape[1]
        if rotary.follows_context:
            context = max(self.context or tensor.dims[0], length)
            return table("cos" if part == "cos" else "sin", rotary, context, 0, length)
        return tensor.read(0, length)

    def _inputs(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The inputs of the whole graph, for some sequences."""
        shape = (stop - start, self.sequences.shape[1])
        inputs = {
            "input_ids": self.sequences[start:stop],
            "attention_mask": np.ones(shape, np.int64),
            "position_ids": np.broadcast_to(np.arange(shape[1]), shape).copy(),
        }
        for layer, a in enumerate(self.facts.attention):
            empty = np.empty((stop - start, a.kv_heads, 0, a.head_dim), np.float32)
            inputs |= {f"past_key_values.{layer}.{part}": empty for part in ("key", "value")}
        return inputs

    def _value(self, name: str) -> ir.Value:
        if value := values_of(self.model).get(name):
            return value
        raise GraphError(f"the graph has no value '{name}': it is not the canonical graph of a decoder")

    @property
    def _rows(self) -> int:
        """Sequences that are run at a time."""
        return max(1, BATCH_TOKENS // int(self.sequences.shape[1]))

    def _batches(self) -> Iterator[tuple[int, int]]:
        for start in range(0, len(self.sequences), self._rows):
            yield start, min(start + self._rows, len(self.sequences))

    def _is_kept(self, hidden: Hidden) -> bool:
        return self.keep and hidden.path.exists()

    def _report(self, stop: int) -> None:
        if self.progress:
            count = len(self.sequences)
            self.progress("calibrate", self.position * count + stop, self.head * count)

    def _check_finite(self, array: np.ndarray, what: str) -> None:
        if array.dtype == np.float32 and not is_finite(array, ir.DataType.FLOAT):
            where = "the head" if self.position == self.head else f"layer {self.position}"
            raise GraphError(
                f"{where}: {what} holds NaN or infinity on this text; the weights are damaged, or float32 is too narrow"
            )


def _input(group: Sequence[Linear]) -> str:
    value = group[0].node.inputs[0]
    assert value is not None
    return str(value.name)


def _check_layers(facts: Facts) -> None:
    if facts.source:
        raise GraphError(
            f"an encoder-decoder ({facts.model_type}) cannot be measured layer by layer; take methods that measure "
            "nothing (nearest, grid, hqq), without a calibration text"
        )
    if not facts.stated:
        raise GraphError(
            "the model cannot be measured layer by layer: its graph comes from another exporter, and its attention was "
            "not recognised; take methods that measure nothing (nearest, grid, hqq)"
        )


def _check(sequences: np.ndarray, vocabulary: int, longest: int) -> None:
    count, length = sequences.shape
    if not count or not length:
        raise OptionError("there are no tokens to run the model on")
    if length > longest:
        raise OptionError(f"sequences of {length:,} tokens do not fit into the model's context of {longest:,}")
    low, high = int(sequences.min()), int(sequences.max())
    if low < 0 or high >= vocabulary:
        bad = low if low < 0 else high
        raise OptionError(
            f"token {bad:,} is not in the model's vocabulary of {vocabulary:,}: it is another tokenizer's"
        )
