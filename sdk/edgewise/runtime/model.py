"""sdk, runtime: the decoder of a bundle, loaded: weights and threads, shared by all of its sessions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.bundle.manifest import Manifest, Provider
from edgewise.errors import BundleError, ContextOverflow
from edgewise.facts import Facts
from edgewise.options import known
from edgewise.rotary import tables
from edgewise.runtime.bound import HIDDEN, KEEP
from edgewise.runtime.ort import open_graph
from edgewise.runtime.providers import CPU

KINDS = ({"decoder"}, {"prefill", "decode"})

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int8)": np.dtype(np.int8),
}


@dataclass(frozen=True)
class CacheTensor:
    """The keys, or the values, of one layer: the two names that a graph has for one buffer."""

    past: str
    present: str
    heads: int
    dim: int
    dtype: np.dtype[Any]


class Model:
    """A lowered graph with its facts: what computes scores. It has no state; a `Session` has.

    `context` bounds its sessions: what the model was made for, unless fewer (or, up to that, more) are asked for.
    `prompts` is a second graph with the same cache, which computes `prefill_from` tokens or more at once. `hidden` says
    whether the graphs give hidden states. `computation` is a hash of all that its scores depend on, but for the
    context; empty where that is not known.
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
        computation: str = "",
    ) -> None:
        self.facts = facts
        self.computation = computation
        self.context = facts.context_length if context is None else context
        _check_context(self.context, facts)
        self.graph = open_graph(path, providers=providers, threads=threads, entries=entries)
        self.cache = _cache(self.graph, facts, path)
        self.hidden = HIDDEN in {value.name for value in self.graph.get_outputs()}
        self.prompts: Any = None
        self.prefill_from = prefill_from
        if prompts:
            self.prompts = open_graph(prompts, providers=providers, threads=threads, entries=entries)
            if _cache(self.prompts, facts, prompts) != self.cache:
                raise BundleError(f"{prompts}: its cache is not that of {path}; build the bundle again")
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
        if set(manifest.graphs) not in KINDS:
            raise BundleError(
                f"{folder}: this runtime runs the graph 'decoder', or 'prefill' and 'decode'; "
                f"the bundle has {known(manifest.graphs)}"
            )
        prompts = None if only else manifest.graphs.get("prefill")
        return cls(
            folder / (manifest.graphs[only] if only else manifest.decoder),
            manifest.facts,
            context=manifest.context if context is None else context,
            providers=manifest.providers,
            threads=threads,
            entries=manifest.session,
            prompts=folder / prompts if prompts else None,
            prefill_from=manifest.prefill_from,
            computation=f"{manifest.computation} {only or 'all'}",
        )

    @cached_property
    def rotary(self) -> dict[str, NDArray[np.float32]]:
        """The tables of this context, by the name of the graph's input; only those that follow the context."""
        found: dict[str, NDArray[np.float32]] = {}
        for name, rotary in self.facts.rotary.items():
            if rotary.follows_context:
                cos, sin = tables(rotary, self.context)
                found |= {f"rotary.{name}.cos": cos, f"rotary.{name}.sin": sin}
        return found


def _check_context(context: int, facts: Facts) -> None:
    if not 0 < context <= facts.context_length:
        raise ContextOverflow(f"a context of {context} tokens was asked for; the model has {facts.context_length}")


def _cache(graph: Any, facts: Facts, path: Path) -> tuple[CacheTensor, ...]:
    """What a session has to allocate, checked against the inputs that the graph really has."""
    types = {value.name: value.type for value in graph.get_inputs()}
    found = []
    for layer, attention in enumerate(facts.attention):
        for kind in ("key", "value"):
            past = f"past_key_values.{layer}.{kind}"
            dtype = _DTYPES.get(types.get(past, "missing"))
            if dtype is None:
                raise BundleError(f"{path}: input '{past}' is {types.get(past, 'missing')}; known: {known(_DTYPES)}")
            found.append(CacheTensor(past, f"present.{layer}.{kind}", attention.kv_heads, attention.head_dim, dtype))
    if KEEP not in {value.name for value in graph.get_overridable_initializers()}:
        raise BundleError(f"{path}: the graph has no optional input '{KEEP}'; build the bundle with this edgewise")
    return tuple(found)
