"""sdk: graphs compiled ahead of time for an accelerator: EPContext models of ONNX Runtime, in the place of the graphs.

Each is an ONNX file of one node, and a binary of the vendor's beside it, which graphs may share, with their weights.
The compiler works in a process of its own, which `python -m edgewise.ahead` is.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgewise.apart import answer, ask
from edgewise.bundle.manifest import CPU, File, Provider
from edgewise.bundle.read import file_hash
from edgewise.errors import TargetError
from edgewise.extras import require_library
from edgewise.options import parse, record
from edgewise.placement import made_by
from edgewise.target import Compile, Target

MADE = "ahead"  # folder, in that of the bundle, until its content is installed
SECONDS = 7200  # of compilation, at most
ERRORS = 3  # what ONNX Runtime logs from this severity on says which nodes or settings are refused
CONTEXT = "ep_cache_context"  # attribute: the file of the binary
CHIP = ("soc_model", "htp_arch")  # options that name a chip of Qualcomm


@dataclass(frozen=True)
class Job:
    """What the child is to do: compile the graphs (path, and path of what it becomes, in the folder) in this order."""

    folder: str
    providers: tuple[Provider, ...]
    graphs: Mapping[str, str]
    share: bool
    session: Mapping[str, str] = field(default_factory=dict)


def check_compiler(target: Target) -> None:
    """Raises as `require_library` where a target's compiler is not installed, before any work is done for it."""
    if target.compile:
        for provider in target.providers:
            if provider.library:
                require_library(provider)


@dataclass(frozen=True)
class Compiled:
    """Compiled models beside the graphs that they are to replace, and what the card says of them."""

    folder: Path
    made: Path
    graphs: tuple[str, ...]
    binaries: Mapping[str, str]  # what the compiler called them, and what they are called after
    card: Mapping[str, Any]

    def install(self, files: Mapping[str, File]) -> dict[str, File]:
        """Put them in the place of the graphs; the files that there are then."""
        kept = {name: file for name, file in files.items() if not name.startswith(self.graphs)}
        for name in files.keys() - kept.keys():
            (self.folder / name).unlink()
        place = (self.folder / self.graphs[0]).parent
        for path in sorted(self.made.iterdir()):
            new = path.rename(place / self.binaries.get(path.name, path.name))
            kept[new.relative_to(self.folder).as_posix()] = _hashed(new)
        self.made.rmdir()
        return kept


def compile_graphs(
    folder: Path, graphs: Sequence[str], target: Target, settings: Compile, *, allow_fallback: bool = False
) -> Compiled:
    """Compile some graphs of a folder, in this order. The folder has them as before, until the result is installed.

    With `allow_fallback` nodes that the compiler does not take stay beside what it makes of the others. Raises
    TargetError where it refuses a graph or the chip, ends its process or does not end.
    """
    made = folder / MADE
    made.mkdir()
    compilers = tuple(
        p if p.name == CPU.name else replace(p, options={**p.options, **settings.options}) for p in target.providers
    )
    paths = {name: f"{MADE}/{Path(name).name}" for name in graphs}
    job = Job(str(folder), (*compilers, *[CPU] * allow_fallback), paths, settings.share_weights, target.session)
    found = ask("edgewise.ahead", record(job), doing=_doing(compilers), seconds=SECONDS)
    _check_chip(compilers, found["compatibility"])
    binaries: dict[str, str] = {}
    for name, path in paths.items():
        _name_binaries(folder / path, Path(name).name, binaries)
    card = {"provider": compilers[0].name, "options": dict(compilers[0].options), "by": made_by(compilers), **found}
    return Compiled(folder, made, tuple(graphs), binaries, card)


def runs_on(target: Target) -> Target:
    """The target of a bundle of compiled graphs: emulators do not load a binary that graphs share, and end."""
    if not (target.compile and target.compile.share_weights):
        return target
    providers = [replace(provider, device="npu") if provider.library else provider for provider in target.providers]
    return replace(target, providers=tuple(providers))


def describe(found: Mapping[str, Any]) -> list[str]:
    """The chip and the compiler, for the card."""
    options = ", ".join(f"{name} {value}" for name, value in found["options"].items())
    return [f"for {options}, by {found['by']}: runs on what is compatible with `{found['compatibility']}`"]


def _doing(compilers: Sequence[Provider]) -> str:
    first = compilers[0]
    options = ", ".join(f"{name} {value}" for name, value in first.options.items())
    return f"the compiler of {first.name}{f' ({options})' if options else ''}"


def _check_chip(compilers: Sequence[Provider], compatibility: str) -> None:
    """The compiler ignores an architecture that it does not know: the string then names another."""
    for provider in compilers:
        chip = [provider.options[name] for name in reversed(CHIP) if name in provider.options]
        if len(chip) == len(CHIP) and f":{':'.join(chip)}:" not in compatibility:
            raise TargetError(
                f"{_doing(compilers)} does not know htp_arch {chip[0]} of soc_model {chip[1]}; it made {compatibility}"
            )


def _name_binaries(path: Path, graph: str, binaries: dict[str, str]) -> None:
    """Have a compiled model refer to binaries by names that begin with that of the graph they were first made for."""
    model = ir.load(path)
    for node in model.graph:
        if node.op_type == "EPContext" and CONTEXT in node.attributes:
            old = node.attributes.get_string(CONTEXT)
            number = sum(new.startswith(graph) for new in binaries.values())
            new = binaries.setdefault(old, f"{graph}_context{number or ''}")
            node.attributes[CONTEXT] = ir.AttrString(CONTEXT, new)
    ir.save(model, path)


def _hashed(path: Path) -> File:
    with path.open("rb", buffering=0) as file:
        return File(path.stat().st_size, file_hash(file))


def _compile(data: Any) -> dict[str, Any]:
    """In the child: sessions that write what was compiled; all are kept until the last, which ends what they share."""
    from edgewise.runtime.library import onnxruntime
    from edgewise.runtime.providers import configure

    job, sessions = parse(Job, data, what="job"), list[Any]()
    os.chdir(job.folder)  # ONNX Runtime makes names from paths: from relative ones, always the same
    for number, (graph, made) in enumerate(job.graphs.items(), start=1):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS
        for key, value in {**job.session, **_entries(made, job.share, last=number == len(job.graphs))}.items():
            options.add_session_config_entry(key, value)
        built_in = configure(options, job.providers)
        sessions.append(onnxruntime.InferenceSession(graph, options, built_in, enable_fallback=0))
    return {"compatibility": _compatibility(made, job.providers[0].name)}


def _entries(made: str, share: bool, *, last: bool) -> dict[str, str]:
    entries = {"ep.context_enable": "1", "ep.context_embed_mode": "0", "ep.context_file_path": made}
    if share:
        entries |= {"ep.share_ep_contexts": "1", "ep.stop_share_ep_contexts": str(int(last))}
    return entries


def _compatibility(path: str, provider: str) -> str:
    """What the provider says a compiled model runs on."""
    from onnxruntime.capi import _pybind_state

    return str(_pybind_state.get_compatibility_info_from_model(path, provider))


if __name__ == "__main__":
    sys.exit(answer(_compile))
