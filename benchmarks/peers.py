"""Prefill and decode of edgewise beside onnxruntime-genai, llama.cpp and openvino-genai, in turn, on one machine.

    python benchmarks/peers.py --work /tmp/edgewise-benchmarks --docs docs/benchmarks.md

Each has the model in its own usual 4 bits: edgewise as `edgewise build` makes it (blocks of 128), without and with a
second graph for prompts (`--prefill int8`), onnxruntime-genai as its builder does (blocks of 32), llama.cpp as Q4_0,
openvino-genai as optimum-intel exports it (int4, group 128). All run on 2 threads, each in a process and an environment
of its own, with fresh random prompts. The first round is not
counted. Quotes medians, and medians of the ratios within a round with their least and most.
--python NAME=PATH uses a Python that has a peer already; otherwise an environment is made.
"""

import argparse
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import peer
from peers_quantized import LLAMA_PACKAGES, WORKERS, write_gguf
from quantization import hardware, insert
from shapes import SHAPES, shaped, write_checkpoint
from speed import Worker

import edgewise
from edgewise.prefill import Prefill

OPENVINO_PACKAGES = ["torch==2.13.0", "openvino-genai", "optimum-intel[openvino]"]
PACKAGES = {
    "onnxruntime-genai": [*peer.PACKAGES, *peer.BUILDER],
    "llama.cpp": LLAMA_PACKAGES,
    "openvino-genai": OPENVINO_PACKAGES,
}
US = ("edgewise", "edgewise, --prefill int8")
PREFILLS: tuple[Prefill | None, ...] = (None, "int8")
MARK = "peers"
HEADING = """\
| model | runner | MB | prefill | decode | edgewise by it: prefill | decode | with `--prefill int8`: prefill | decode |
|---|---|---:|---:|---:|---:|---:|---:|---:|"""

Speeds = tuple[float, float]  # tokens a second: prefill, decode


@dataclass(frozen=True)
class Contender:
    """A runner with its model: the files whose bytes it reads, and how its worker is started."""

    name: str
    weights: tuple[Path, ...]
    python: Path
    script: str
    arguments: tuple[object, ...]


def contenders(shape: str, work: Path, pythons: Mapping[str, Path]) -> list[Contender]:
    """The same random checkpoint for each of them; what an earlier run built is used again."""
    checkpoint = write_checkpoint(shaped(shape), work / shape)
    vocabulary = SHAPES[shape].vocab_size
    found = [ours(name, checkpoint, work / shape, prefill) for name, prefill in zip(US, PREFILLS, strict=True)]
    if python := pythons.get("onnxruntime-genai"):
        folder = peer.build(checkpoint, work / f"{shape}-genai", python)
        data = folder / "model.onnx.data"
        found.append(Contender("onnxruntime-genai", (data,), python, "genai.py", (folder, vocabulary)))
    if python := pythons.get("llama.cpp"):
        file = q4_0(checkpoint, work / f"{shape}.gguf", python)
        found.append(Contender("llama.cpp", (file,), python, "llama.py", ("time", file)))
    if python := pythons.get("openvino-genai"):
        folder = exported_by_optimum(checkpoint, work / f"{shape}-openvino", python)
        data = folder / "openvino_model.bin"
        arguments = (folder, vocabulary, peer.THREADS)
        found.append(Contender("openvino-genai", (data,), python, "openvino_worker.py", arguments))
    return found


def ours(name: str, checkpoint: Path, output: Path, prefill: Prefill | None) -> Contender:
    bundle = output.with_name(f"{output.name}{'-' + prefill if prefill else ''}.edge")
    if not bundle.exists():
        edgewise.build(checkpoint, target="cpu-x64", output=bundle, prefill=prefill)
    return Contender(name, tuple(bundle.glob("onnx/*_data")), peer.here(), "bundle.py", (bundle,))


def q4_0(checkpoint: Path, output: Path, python: Path) -> Path:
    """The checkpoint as llama.cpp's Q4_0, by way of a GGUF file in float16."""
    if not output.exists():
        halves = output.with_suffix(".f16.gguf")
        write_gguf(python, checkpoint, halves, np.float16)
        quiet = subprocess.DEVNULL
        command: list[str | Path] = [python, WORKERS / "llama.py", "quantize", halves, output, "Q4_0"]
        subprocess.run(command, check=True, stdout=quiet, stderr=quiet)
        halves.unlink()
    return output


def exported_by_optimum(checkpoint: Path, output: Path, python: Path) -> Path:
    """The checkpoint as optimum-intel exports it: int4 in groups of 128, the tied lm_head in int8."""
    if not (output / "openvino_model.bin").exists():
        command: list[str | Path] = [python.with_name("optimum-cli"), "export", "openvino", "-m", checkpoint]
        command += ["--task", "text-generation-with-past", "--weight-format", "int4", "--group-size", "128"]
        command += ["--ratio", "1.0", output]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, env=peer.offline(), stdout=quiet, stderr=quiet)
    return output


def race(found: Sequence[Contender], *, prefill: int, decode: int, rounds: int) -> list[dict[str, Speeds]]:
    """Tokens a second of each contender, round by round."""
    with ExitStack() as stack:
        workers = {c.name: stack.enter_context(Worker.start(c.python, c.script, *c.arguments)) for c in found}
        laps = [{name: w.measure(prefill, decode, seed) for name, w in workers.items()} for seed in range(rounds + 1)]
    return laps[1:]


def rows(shape: str, found: Sequence[Contender], laps: Sequence[Mapping[str, Speeds]]) -> list[str]:
    lines = []
    for contender in found:
        theirs = contender.name
        speeds = [median(lap[theirs][i] for lap in laps) for i in (0, 1)]
        ratios = [_spread([lap[us][i] / lap[theirs][i] for lap in laps]) for us in US for i in (0, 1)]
        if theirs in US:
            ratios = [""] * len(ratios)
        size = f"{sum(file.stat().st_size for file in contender.weights) / 1e6:,.0f}"
        cells = [shape, contender.name, size, f"{speeds[0]:,.0f}", f"{speeds[1]:,.1f}", *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def versions(pythons: Mapping[str, Path]) -> str:
    """What was measured against."""
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    said = []
    for name, python in pythons.items():
        package = "llama-cpp-python" if name == "llama.cpp" else name
        found = subprocess.run([python, "-c", code, package], check=True, capture_output=True, text=True)
        said.append(f"{package} {found.stdout.strip()}")
    return ", ".join(said)


def _python(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints, builds and environments")
    parser.add_argument("--shapes", nargs="+", default=["qwen2.5-0.5b", "llama-3.2-1b"], choices=sorted(SHAPES))
    parser.add_argument("--peers", nargs="+", default=sorted(PACKAGES), choices=sorted(PACKAGES))
    parser.add_argument("--python", dest="pythons", action="append", type=_python, default=[], metavar="NAME=PATH")
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    given = dict(options.pythons)
    pythons = {name: given.get(name) or peer.environment(work / name, PACKAGES[name]) for name in options.peers}
    lines = []
    for shape in options.shapes:
        found = contenders(shape, work, pythons)
        laps = race(found, prefill=options.prefill, decode=options.decode, rounds=options.rounds)
        lines += rows(shape, found, laps)
        print("\n".join(lines), f"load {os.getloadavg()[0]:.1f}", sep="\n", flush=True)
    text = "\n".join(
        [
            f"Prefill of {options.prefill} tokens, then {options.decode} decoded, in tokens a second: medians of",
            f"{options.rounds} rounds on {hardware()}, 2 threads; {versions(pythons)}. Above 1, edgewise is faster.",
            "",
            HEADING,
            *lines,
        ]
    )
    if options.docs:
        insert(options.docs, text, MARK)


if __name__ == "__main__":
    main()
