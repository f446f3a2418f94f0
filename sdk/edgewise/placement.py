"""sdk: proof of placement: which execution provider computes each node of a bundle, as ONNX Runtime has decided it.

A session opens, and runs, where a provider takes none of the nodes: the CPU does then, and nobody is told. So the nodes
are asked for by name, in a session that lets the CPU take what it gets, and counted.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.bundle.manifest import CPU, Manifest, Provider
from edgewise.errors import TargetError
from edgewise.facts import EncoderFacts
from edgewise.options import known, parse

if TYPE_CHECKING:  # who reads what a card says need not have it
    import onnx_ir as ir

RECORD = {"session.record_ep_graph_assignment_info": "1"}
EMULATED = frozenset({"QNNExecutionProvider"})  # whose library computes on a processor what accelerators would
NAMED = 5  # nodes of an error message


@dataclass(frozen=True)
class Node:
    """A node of a graph, and who computes it."""

    name: str
    operator: str
    provider: str
    sizes: bool = False  # whether it computes nothing but shapes, lengths, bounds

    def __str__(self) -> str:
        return f"{self.operator} '{self.name}'"


@dataclass(frozen=True)
class Placement:
    """What running a bundle's graphs has shown: the nodes of each, or why there was nothing to see here."""

    graphs: Mapping[str, tuple[Node, ...]] = field(default_factory=dict)
    not_run: str = ""

    @classmethod
    def read(cls, text: str) -> "Placement":
        return parse(cls, json.loads(text), what="placement")

    def write(self) -> str:
        """JSON, on one line."""
        return json.dumps(dataclasses.asdict(self))

    def fallen(self, providers: Sequence[Provider]) -> dict[str, list[Node]]:
        """The nodes of each graph that another provider computes than those that were asked for.

        Beside a provider that is no library, the CPU may compute sizes (`edgewise.shapes`).
        """
        asked = {provider.name for provider in providers}
        strict = any(provider.library for provider in providers)
        found = {
            graph: [node for node in nodes if node.provider not in asked and (strict or not _is_spared(node))]
            for graph, nodes in self.graphs.items()
        }
        return {graph: nodes for graph, nodes in found.items() if nodes}

    def refuse_fallen(self, providers: Sequence[Provider]) -> None:
        """Raises TargetError for nodes that fell back, which names them, and says what to do."""
        for graph, nodes in self.fallen(providers).items():
            others = known({node.provider for node in nodes})
            named = [*map(str, nodes[:NAMED]), *([f"{len(nodes) - NAMED:,} more"] if len(nodes) > NAMED else [])]
            raise TargetError(
                f"{len(nodes):,} of {len(self.graphs[graph]):,} nodes of the graph '{graph}' fall back from "
                f"{known(provider.name for provider in providers)} to {others}: {', '.join(named)}; "
                "take another recipe, or let them: --allow-fallback"
            )

    def card(self, providers: Sequence[Provider]) -> dict[str, Any]:
        """What the card of a bundle says: nodes by graph and provider, which of them fell back, and who decided."""
        if self.not_run:
            return {"not_run": self.not_run}
        counts = {graph: dict(Counter(node.provider for node in nodes)) for graph, nodes in self.graphs.items()}
        fallen = {graph: [f"{node}" for node in nodes] for graph, nodes in self.fallen(providers).items()}
        return {"nodes": counts, "by": made_by(providers), **({"fallen": fallen} if fallen else {})}


def run(folder: Path, manifest: Manifest, graph: str) -> tuple[Node, ...]:
    """Compute a token with a graph of a bundle, and see its nodes. The CPU may take some; the library may crash.

    In an emulator nothing is computed, as a token of a large model would take minutes there. Raises TargetError or
    MissingExtra where a provider is not here.
    """
    import onnx_ir as ir

    from edgewise.runtime.encoder import try_encoder
    from edgewise.runtime.model import Model
    from edgewise.runtime.session import Session

    named = {provider.name for provider in manifest.providers}
    providers = (*manifest.providers, *([] if CPU.name in named else [CPU]))
    open_to_all = replace(manifest, providers=providers, session={**manifest.session, **RECORD})
    written = ir.load(folder / manifest.graphs[graph]).graph
    if isinstance(manifest.facts, EncoderFacts):
        return judge(written, _nodes(try_encoder(folder, open_to_all)))
    of_prompts = graph == "prefill" and bool(manifest.cache.capacity)  # it scores nothing: it runs beside the other
    facts = manifest.language_model
    model = Model.load(folder, open_to_all, only=None if of_prompts or facts.source else graph)
    count = min(model.context, manifest.prefill_from + 1) if of_prompts else 1
    if facts.source:
        model = model.given((facts.source.start,))
    if not is_emulated(manifest.providers):
        Session(model, capacity=count).prefill([facts.bos or 0] * count)
    return judge(written, _nodes({"encoder": model.encoder, "prefill": model.prompts}.get(graph) or model.graph))


def judge(written: "ir.Graph", assigned: Iterable[Node]) -> tuple[Node, ...]:
    """The assigned nodes, and which of them compute sizes only, by the graph as it was written.

    ONNX Runtime assigns nodes of a graph that it has optimized: one that the written graph does not have, by this name
    and with this operator, counts as work, unless its operator measures.
    """
    from edgewise.shapes import MEASURES, of_sizes

    sizes = of_sizes(written)
    return tuple(
        replace(node, sizes=(node.name, node.operator) in sizes or node.operator in MEASURES) for node in assigned
    )


def is_emulated(providers: Sequence[Provider]) -> bool:
    """Whether a processor computes what an accelerator would, slowly. Raises as `run`."""
    from edgewise.runtime.providers import is_processor

    return any(provider.name in EMULATED and is_processor(provider) for provider in providers)


def describe(found: Mapping[str, Any]) -> list[str]:
    """Which provider computes how much of each graph, what fell back to another one, or why nobody knows."""
    if "not_run" in found:
        return [f"not run where it was built: {found['not_run']}"]
    lines = []
    for graph, counts in sorted(found["nodes"].items()):
        nodes = ", ".join(f"{count:,} nodes on {provider}" for provider, count in sorted(counts.items()))
        fallen = found.get("fallen", {}).get(graph, [])
        lines.append(f"{graph}: {nodes} ({found['by']})" + (f"; fell back: {', '.join(fallen)}" if fallen else ""))
    return lines


def _nodes(session: Any) -> Iterator[Node]:
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            operator = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
            yield Node(node.name, operator, part.ep_name)


def _is_spared(node: Node) -> bool:
    return node.provider == CPU.name and node.sizes


def made_by(providers: Sequence[Provider]) -> str:
    """Who has decided: "onnxruntime 1.31.1, onnxruntime-qnn 2.7.0"."""
    modules = ["onnxruntime", *(provider.library for provider in providers if provider.library)]
    installed = packages_distributions()
    packages = dict.fromkeys(name for module in modules for name in installed.get(module, ()))
    return ", ".join(f"{name} {version(name)}" for name in packages)
