"""sdk, quality: what gives scores: a lowered graph, by sessions, or a canonical one, walked layer by layer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from edgewise.bundle.manifest import CHUNK, FILE_NAME
from edgewise.bundle.read import Bundle
from edgewise.calibration.cache import scratch
from edgewise.calibration.walk import Walk
from edgewise.checkpoint import Checkpoint
from edgewise.crossing import SOURCE_IDS
from edgewise.errors import OptionError
from edgewise.exporters import export_graph
from edgewise.facts import Facts
from edgewise.graph import get_facts, linears
from edgewise.memory import available_memory
from edgewise.prepare import open_checkpoint
from edgewise.quality.halves import halves
from edgewise.runtime.model import Model
from edgewise.runtime.ort import open_graph
from edgewise.runtime.session import Session
from edgewise.sizes import sizes_of, total
from edgewise.writer import Progress, write_model

CHUNK_BYTES = 64 << 20  # of the scores of one chunk
GROUP_TOKENS = 4096  # walked together: what a walk that is killed has to do again


class Scorer(Protocol):
    """A model that scores sequences."""

    @property
    def facts(self) -> Facts: ...

    @property
    def context(self) -> int | None:
        """Of its sessions, where that is known: rotary tables can follow it."""
        ...

    def logits(self, sequences: np.ndarray) -> Iterator[np.ndarray]:
        """The scores after each token of int64 `[n, length]`, sequence after sequence: float32 `[tokens, vocabulary]`.

        They come a chunk at a time; a chunk is valid until the next one. With an encoder, after each of `halves`.
        """


class Lowered:
    """The graph of a bundle, as a device runs it."""

    def __init__(self, model: Model) -> None:
        self.model, self.facts = model, model.facts
        self.context: int | None = model.context

    def logits(self, sequences: np.ndarray) -> Iterator[np.ndarray]:
        sources, answers = halves(sequences, self.facts)
        length = answers.shape[1]
        step = max(1, min(CHUNK, CHUNK_BYTES // (4 * self.facts.vocab_size)))
        session = None if self.facts.source else Session(self.model, capacity=length)
        for source, tokens in zip(sources, answers, strict=True):
            session = session or Session(self.model.given(source.tolist()), capacity=length)
            session.rewind(0)
            for start in range(0, length, step):
                chunk = tokens[start : start + step]
                yield session.prefill(chunk, scores=len(chunk))
            session = None if self.facts.source else session


class Canonical:
    """A canonical graph, of which one layer is in memory at a time."""

    def __init__(self, model: ir.Model, *, context: int | None = None, progress: Progress | None = None) -> None:
        self.model, self.facts = model, get_facts(model)
        self.context, self.progress = context, progress

    def logits(self, sequences: np.ndarray) -> Iterator[np.ndarray]:
        self._refuse_what_does_not_fit()
        rows = max(1, GROUP_TOKENS // int(sequences.shape[1]))
        for start in range(0, len(sequences), rows):
            with scratch() as folder:
                walk = Walk(
                    self.model,
                    sequences[start : start + rows],
                    folder=folder,
                    context=self.context,
                    progress=self._part(start, rows, len(sequences)),
                )
                for layer in walk.layers:
                    walk.advance(layer)
                yield from walk.logits()

    def _refuse_what_does_not_fit(self) -> None:
        """Raises OptionError where the memory at hand is too small for the largest layer, or for the lm_head."""
        sizes: dict[int | None, int] = {}
        for linear in linears(self.model):
            if linear.role != "embedding":  # of which few rows are read
                sizes[linear.layer] = sizes.get(linear.layer, 0) + 4 * linear.matrix.size
        needed, memory = max(sizes.values(), default=0), available_memory()
        if memory is not None and needed > memory:
            raise OptionError(
                f"a layer of the float model takes {needed / 1e9:.2f} GB of memory, and {memory / 1e9:.2f} GB are "
                "available; hold the bundle against another bundle, or measure on a larger machine"
            )

    def _part(self, start: int, rows: int, count: int) -> Progress | None:
        """The progress of one walk, as a part of that of all."""
        if not (report := self.progress):
            return None

        def part(stage: str, done: int, total: int) -> None:
            rest = min(rows, count - start)
            report("reference", start * total + done * rest, count * total)

        return part


class Whole:
    """A float graph whose layers cannot be told apart: all of it is in memory at once.

    It is as others have exported it, or its layers also read what an encoder gives.
    """

    def __init__(self, model: ir.Model, *, context: int | None = None) -> None:
        self.model, self.facts, self.context = model, get_facts(model), context

    def logits(self, sequences: np.ndarray) -> Iterator[np.ndarray]:
        self._refuse_what_does_not_fit()
        with scratch() as folder:
            path = folder / "whole.onnx"
            write_model(self.model, path)
            graph = open_graph(path)
            inputs = {value.name for value in graph.get_inputs()}
            for source, tokens in zip(*halves(sequences, self.facts), strict=True):
                given = self._feeds(tokens[None]) | {SOURCE_IDS: source[None]}
                feeds = {name: array for name, array in given.items() if name in inputs}
                (logits,) = graph.run(["logits"], feeds)
                yield from np.array_split(logits[0], -(-len(tokens) // CHUNK))

    def _feeds(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """One sequence `[1, length]`, with nothing before it."""
        feeds = {
            "input_ids": tokens,
            "attention_mask": np.ones(tokens.shape, np.int64),
            "position_ids": np.arange(tokens.shape[1])[None],
        }
        for layer, a in enumerate(self.facts.attention):
            empty = np.zeros((1, a.kv_heads, 0, a.head_dim), np.float32)
            feeds |= {f"past_key_values.{layer}.{part}": empty for part in ("key", "value")}
        return feeds

    def _refuse_what_does_not_fit(self) -> None:
        """Raises OptionError where the memory at hand is too small for the weights."""
        needed, memory = total(sizes_of(self.model)).bytes, available_memory()
        if memory is not None and needed > memory:
            raise OptionError(
                f"the float model takes {needed / 1e9:.2f} GB of memory, and {memory / 1e9:.2f} GB are available; "
                "hold the bundle against another bundle, or measure on a larger machine"
            )


def unquantized(model: ir.Model, *, context: int | None = None, progress: Progress | None = None) -> Scorer:
    """What gives scores of a graph as it was exported: layer by layer, where these are stated, and no encoder's."""
    facts = get_facts(model)
    if facts.stated and not facts.source:
        return Canonical(model, context=context, progress=progress)
    return Whole(model, context=context)


def is_bundle(source: str | Path) -> bool:
    return (Path(source) / FILE_NAME).exists()


def lowered(bundle: Bundle, *, length: int, graph: str | None = None) -> Lowered:
    """The model of a bundle, for sequences of `length` tokens; its own context, where that suffices.

    Where the bundle has several graphs it is the one that decodes, unless another is named.
    """
    longest = bundle.manifest.language_model.context_length
    if length > longest:
        raise OptionError(f"sequences of {length:,} tokens do not fit into the model's context of {longest:,}")
    only = graph or ("decode" if "decode" in bundle.manifest.graphs else None)
    context = max(length, bundle.manifest.context)
    return Lowered(Model.load(bundle.path, bundle.manifest, context=context, only=only))


def scorer(
    source: str | Path | Checkpoint | ir.Model,
    *,
    length: int,
    context: int | None = None,
    progress: Progress | None = None,
) -> Scorer:
    """What gives scores for sequences of `length` tokens: of a bundle, a checkpoint or a canonical graph.

    `context`: of the session that a graph or a checkpoint is to stand for; a bundle has its own.
    """
    if isinstance(source, ir.Model):
        return unquantized(source, context=context, progress=progress)
    if isinstance(source, Checkpoint) or not is_bundle(source):
        return unquantized(export_graph(open_checkpoint(source)), context=context, progress=progress)
    return lowered(Bundle.open(source), length=length)
