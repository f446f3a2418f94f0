"""sdk, bundle: the manifest: what a bundle is, and a hash of every other file in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import blake3

from edgewise.errors import BundleError, OptionError
from edgewise.facts import RUN_BY, AnyFacts, EncoderFacts, Facts
from edgewise.options import parse, record

FORMAT = 2  # the newest that is read; each bundle states the oldest that tells what it is
FORMATS = {task: 1 if task == "text-generation" else 2 for task in RUN_BY}
FILE_NAME = "manifest.json"
DIGEST = "blake3"
T = TypeVar("T", Facts, EncoderFacts)

CHUNK = 128  # tokens: more are no faster where weights have 4 bits, and take more memory for activations


@dataclass(frozen=True)
class File:
    """One file of the bundle: its size, and BLAKE3 of its content in hexadecimal."""

    bytes: int
    blake3: str


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime that a bundle runs on, with its options."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    library: str = ""  # import name of the package whose library is registered first; empty: it is built in
    device: Literal["", "cpu", "gpu", "npu"] = ""  # which of the devices that the library finds; empty: the first
    extra: Literal["", "cpu", "gpu", "qnn", "openvino"] = ""  # of edgewise, to install it


CPU = Provider("CPUExecutionProvider")


@dataclass(frozen=True)
class Cache:
    """How a graph keeps keys and values."""

    dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    shared: bool = True  # past and present are one buffer, written in place; else the graph gives new positions only
    capacity: int = 0  # positions that graphs of fixed lengths hold; 0: lengths are dynamic
    prefill: int = 0  # tokens that the graph of prompts computes in a run; 0: any number


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says. Paths are relative to the bundle, with forward slashes.

    The file is JSON in one fixed form (two spaces, sorted keys), with BLAKE3 of the rest under `"blake3"`: so a
    manifest of which any byte was changed is not read.
    """

    format: int
    edgewise: str  # version that wrote it
    target: str
    facts: AnyFacts
    graphs: Mapping[str, str]  # "decoder", "prefill" and "decode", or "encoder": path of the ONNX file
    files: Mapping[str, File]
    providers: tuple[Provider, ...]
    context: int  # tokens that a session gets unless it asks for more or fewer
    cache: Cache = Cache()
    session: Mapping[str, str] = field(default_factory=dict)  # ONNX Runtime session configuration entries
    threads: int | None = None  # of a session, unless it is opened with another number; None: one for each core
    recipe: tuple[Mapping[str, Any], ...] = ()
    prefill_from: int = 0  # tokens: so many at once are computed by the graph "prefill", fewer by "decode"
    chunk: int = CHUNK  # tokens of a prompt that are computed at a time
    hidden_states: bool = False  # whether the graphs give them: what the lm_head scores, of every position
    versions: Mapping[str, str] = field(default_factory=dict)  # of the packages that made it
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def language_model(self) -> Facts:
        """The facts of a model that generates text. Raises BundleError for one that does something else."""
        return self._of(Facts, "generates no text")

    @property
    def encoder(self) -> EncoderFacts:
        """The facts of a model that gives vectors or labels. Raises BundleError for one that does something else."""
        return self._of(EncoderFacts, "gives neither vectors nor labels")

    def _of(self, kind: type[T], lacks: str) -> T:
        facts = self.facts
        if isinstance(facts, kind):
            return facts
        runs = f"{RUN_BY[facts.task]} run it"
        raise BundleError(f"this bundle holds a model for {facts.task} ({facts.model_type}), which {lacks}: {runs}")

    @property
    def decoder(self) -> str:
        """The graph that can do without another: the only one, or the one that decodes; empty where there is none."""
        return self.graphs.get("decoder") or self.graphs.get("decode", "")

    @property
    def computation(self) -> str:
        """A hash of all that scores depend on: graphs, weights, facts and settings, and no other file."""
        graphs = tuple(self.graphs.values())  # the weights of one are the file whose name goes on after its name
        hashes = {name: file.blake3 for name, file in self.files.items() if name.startswith(graphs)}
        names = ("facts", "graphs", "providers", "session", "prefill_from", "chunk")
        settings = {name: value for name, value in record(self).items() if name in names}
        return _digest({**settings, "files": hashes})

    @classmethod
    def read(cls, text: str, *, where: str) -> "Manifest":
        """The manifest from JSON. Raises BundleError, also for a format newer than this edgewise knows."""
        data = _checked(text, where=where)
        try:
            found = parse(cls, data, what=where)
        except OptionError as error:
            raise BundleError(str(error)) from error
        if found.format < (needed := oldest(found.facts)):
            rings = "" if FORMATS[found.facts.task] == needed else " with rings"
            raise BundleError(f"{where}: it states format {found.format}, and {found.facts.task}{rings} takes {needed}")
        return found

    def write(self) -> str:
        """The manifest as JSON: the same manifest gives the same bytes."""
        data = record(self)
        return _render(data | {DIGEST: _digest(data)})


def oldest(facts: AnyFacts) -> int:
    """The oldest format that tells what such a model is: an older edgewise would keep all positions of a ring."""
    rings = isinstance(facts, Facts) and any(attention.ring for attention in facts.attention)
    return FORMAT if rings else FORMATS[facts.task]


def _checked(text: str, *, where: str) -> dict[str, Any]:
    """The content without its digest, which is right."""
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{where}: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise BundleError(f"{where}: this is not the manifest of a bundle: it states no format")
    if data["format"] > FORMAT:
        newest = f"{FORMAT}, the newest that this edgewise reads"
        raise BundleError(f"{where}: format {data['format']} is newer than {newest}; upgrade edgewise")
    digest = data.pop(DIGEST, None)
    if digest != _digest(data) or text != _render(data | {DIGEST: digest}):
        raise BundleError(f"{where}: the content does not match its hash: it was damaged or edited; build it again")
    return data


def _render(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def _digest(data: Mapping[str, Any]) -> str:
    return blake3.blake3(_render(data).encode()).hexdigest()
