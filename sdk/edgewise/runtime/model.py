"""sdk, runtime: the decoder of a bundle, loaded: weights and threads, shared by all of its sessions."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.bundle.manifest import CHUNK, CPU, Manifest, Provider
from edgewise.errors import BundleError, ContextOverflow, GenerationError
from edgewise.facts import Facts
from edgewise.names import DIRECTML
from edgewise.options import known
from edgewise.rotary import frequencies, tables
from edgewise.runtime.captured import is_captured
from edgewise.runtime.library import first_line
from edgewise.runtime.memory import Memory
from edgewise.runtime.ort import open_graph
from edgewise.runtime.pages import huge_pages
from edgewise.runtime.ring import Rings
from edgewise.runtime.signature import HIDDEN, INPUT_IDS, Signature, read_signature

KINDS = ({"decoder"}, {"prefill", "decode"}, {"encoder", "decoder"})


class Model:
    """A lowered graph with its facts: what computes scores. It has no state; a `Session` has.

    `context` bounds its sessions: what the model was made for, unless fewer (or, up to that, more) are asked for.
    `prompts` is a second graph with the same cache, which computes `prefill_from` tokens or more at once. `hidden` says
    whether the graphs give hidden states. `computation` is a hash of all that its scores depend on, but for the
    context; empty where that is not known.

    A graph writes its cache in place, and then several rows can be computed side by side; or it `appends`: it gives
    keys and values of new tokens, of one row at a time. Lengths of the latter may be `fixed`: its cache has `capacity`
    positions, `width` tokens of a prompt are computed at a time, and scored ones one by one. Then layers with a window
    may keep the last positions only, in `rings`.

    That of an encoder-decoder has an `encoder`, and sessions once it is `given` a `source` that the encoder reads.
    """

    def __init__(
        self,
        path: Path,
        facts: Facts,
        *,
        context: int | None = None,
        providers: Sequence[Provider] = (CPU,),
        threads: int | None = None,
        entries: Mapping[str, str] | None = None,
        prompts: Path | None = None,
        prefill_from: int = 0,
        chunk: int = CHUNK,
        computation: str = "",
        capacity: int = 0,
        encoder: Path | None = None,
    ) -> None:
        if context is not None:
            _check_context(context, facts)
        self.facts = facts
        self.computation = computation
        with huge_pages():
            self.graph = open_graph(path, providers=providers, threads=threads, entries=entries)
        self.signature = read_signature(self.graph, facts, path)
        self.cache = self.signature.cache
        self.rings = Rings(frozenset((each.window, each.slots) for each in self.cache if each.window is not None))
        whole = [each.slots for each in self.cache if each.window is None]
        # Positions that the graphs were compiled for, where that is fixed; a graph with rings only does not tell.
        self.capacity = max(whole) if whole else capacity or max(each.slots for each in self.cache)
        self.memory = Memory(self.graph, self.cache[0].past)
        self.singly = any(provider.name == DIRECTML for provider in providers)  # none of several would see the past
        self.captures = is_captured(providers)  # decoding, as a CUDA graph
        self.prompts: Any = None
        self.prompt_signature: Signature | None = None
        self.prefill_from = prefill_from
        self.chunk = chunk  # tokens of a prompt that a session computes at a time
        if prompts:
            self.prompts = open_graph(prompts, providers=providers, threads=threads, entries=entries)
            self.prompt_signature = read_signature(self.prompts, facts, prompts)
            if self.prompt_signature.fits != self.signature.fits:
                raise BundleError(f"{prompts}: its cache is not that of {path}; build the bundle again")
        self.encoder = open_graph(encoder, providers=providers, threads=threads, entries=entries) if encoder else None
        self.source: tuple[int, ...] = ()
        if "logits" not in self.signature.outputs:
            raise BundleError(f"{path}: the graph gives no scores: it is for prompts, beside one that decodes")
        self.hidden = HIDDEN in self.signature.outputs
        self.context = self._context(context)
        self.ones = np.ones((1, self.context), np.int64)  # the attention mask of every length, by its prefixes
        self.positions = np.arange(self.context)

    @classmethod
    def load(
        cls,
        folder: Path,
        manifest: Manifest,
        *,
        threads: int | None = None,
        context: int | None = None,
        only: str | None = None,
    ) -> "Model":
        """The model of a bundle whose manifest has been read (and its files verified).

        `only`: the graph of that name, for all that is computed.
        """
        facts = manifest.language_model
        if set(manifest.graphs) not in KINDS:
            raise BundleError(
                f"{folder}: this runtime runs the graph 'decoder', 'prefill' and 'decode', or 'encoder' and 'decoder'; "
                f"the bundle has {known(manifest.graphs)}"
            )
        prompts, encoder = None if only else manifest.graphs.get("prefill"), manifest.graphs.get("encoder")
        model = cls(
            folder / (manifest.graphs[only] if only else manifest.decoder),
            facts,
            context=manifest.context if context is None else context,
            providers=manifest.providers,
            threads=manifest.threads if threads is None else threads,
            entries=manifest.session,
            prompts=folder / prompts if prompts else None,
            prefill_from=manifest.prefill_from,
            chunk=manifest.chunk,
            capacity=manifest.cache.capacity,
            computation=f"{manifest.computation} {only or 'all'}",
            encoder=folder / encoder if encoder else None,
        )
        model._check_tables(manifest.context)
        return model

    @property
    def appends(self) -> bool:
        """Whether the graphs give keys and values of new tokens, instead of writing them in place."""
        return self.signature.appends

    @property
    def fixed(self) -> bool:
        """Whether the graphs have lengths that they were compiled for."""
        return bool(self.capacity)

    @property
    def width(self) -> int:
        """Tokens of a prompt that are computed at a time; 0: any number."""
        return (self.prompt_signature or self.signature).width

    @property
    def least_scores(self) -> int:
        """What a run has to score, wanted or not."""
        return 0 if self.appends else 1

    @property
    def table_context(self) -> int:
        """The context whose rotary tables the graphs compute with."""
        return self.capacity or self.context

    def _context(self, asked: int | None) -> int:
        """The context of its sessions. Raises ContextOverflow for more than the graphs were compiled for."""
        if self.fixed and (asked or 0) > self.capacity:
            raise ContextOverflow(
                f"a context of {asked} tokens was asked for; the graphs of this bundle were compiled for "
                f"{self.capacity}: build it with --context {asked}"
            )
        return asked or self.capacity or self.facts.context_length

    def _check_tables(self, built_for: int) -> None:
        """Raises ContextOverflow where rotary tables that follow the context are constants, and those of another."""
        for name, rotary in self.facts.rotary.items():
            if self.fixed or not rotary.follows_context or f"rotary.{name}.cos" in self.signature.inputs:
                continue
            ours, theirs = frequencies(rotary, self.context), frequencies(rotary, built_for)
            if self.context > built_for or not np.array_equal(ours, theirs):
                raise ContextOverflow(
                    f"a context of {self.context} tokens was asked for; this bundle has the rotary tables of "
                    f"{built_for}: build it with --context {self.context}"
                )

    def given(self, source: Sequence[int]) -> "Model":
        """The decoder of answers to a source text, with the same weights. The encoder reads it when it is needed."""
        model = copy.copy(self)
        model.source = tuple(source)
        model.computation = self.computation and f"{self.computation} source {model.source}"
        vars(model).pop("crossed", None)
        return model

    def refuse_without_source(self) -> None:
        """Raises GenerationError where there is an encoder, and nothing that it shall read."""
        if self.encoder is not None and not self.source:
            raise GenerationError(
                f"this model ({self.facts.model_type}) has an encoder, which reads a prompt first: "
                "ask for it with edgewise run, or Runner.generate; for a session, take model.given(tokens)"
            )

    @property
    def is_read(self) -> bool:
        """Whether the encoder has read the source."""
        return "crossed" in vars(self)

    @cached_property
    def crossed(self) -> dict[str, NDArray[Any]]:
        """What the encoder gives for the source, by the name of the decoder's input, `[1, heads, source, dim]`."""
        if self.encoder is None:
            return {}
        names = [value.name for value in self.encoder.get_outputs()]
        try:
            found = self.encoder.run(names, {INPUT_IDS: np.array([self.source], np.int64)})
        except Exception as error:
            raise GenerationError(f"the encoder does not run: {first_line(error)}") from error
        return {name: np.ascontiguousarray(array) for name, array in zip(names, found, strict=True)}

    @cached_property
    def rotary(self) -> dict[str, NDArray[np.float32]]:
        """The tables of this context, by the name of the graph's input; only those that follow the context."""
        found: dict[str, NDArray[np.float32]] = {}
        for name, rotary in self.facts.rotary.items():
            if rotary.follows_context:
                cos, sin = tables(rotary, self.table_context)
                found |= {f"rotary.{name}.cos": cos, f"rotary.{name}.sin": sin}
        return found


def _check_context(context: int, facts: Facts) -> None:
    if not 0 < context <= facts.context_length:
        raise ContextOverflow(f"a context of {context} tokens was asked for; the model has {facts.context_length}")
