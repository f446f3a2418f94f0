"""CPU seconds and peak memory of a build, whole processes, as the operating system accounts for them.

    python benchmarks/build.py --work /tmp/edgewise-benchmarks [--peer]

Builds int4 bundles of random checkpoints shaped like Qwen2.5-0.5B (24 and 48 layers) and Llama-3.2-1B without the final
load check, and the first once more with it; with --peer also onnxruntime-genai's own int4 build of the first.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import peer
from shapes import shaped, write_checkpoint


@dataclass(frozen=True)
class Cost:
    """What one process took, its children included."""

    cpu_s: float
    peak_bytes: int


def run(command: Sequence[object], **environment: str) -> Cost:
    """Run a command to its end. Raises CalledProcessError, with what it said."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as said:
        env = peer.offline() | environment
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=said, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise subprocess.CalledProcessError(process.returncode, words, stderr=said.read())
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def build(checkpoint: Path, output: Path, *flags: str) -> Cost:
    shutil.rmtree(output, ignore_errors=True)
    command = [peer.here().with_name("edgewise"), "build", checkpoint, "--target", "cpu-x64", "-o", output]
    return run([*command, *flags])


def build_peer(checkpoint: Path, output: Path, python: Path) -> Cost:
    shutil.rmtree(output, ignore_errors=True)
    command = [python, "-m", "onnxruntime_genai.models.builder", "-i", checkpoint, "-o", output]
    return run([*command, "-p", "int4", "-e", "cpu", "-c", output.with_suffix(".cache")])


def report(name: str, cost: Cost) -> None:
    print(f"{name:45} {cost.cpu_s:6.1f} s CPU   {cost.peak_bytes / 1e9:5.2f} GB peak", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints, builds and environments")
    parser.add_argument("--peer", action="store_true", help="also onnxruntime-genai's builder (installs torch)")
    options = parser.parse_args()
    work: Path = options.work
    small = write_checkpoint(shaped("qwen2.5-0.5b"), work / "qwen2.5-0.5b")
    deep = write_checkpoint(shaped("qwen2.5-0.5b", layers=48), work / "qwen2.5-0.5b-48-layers")
    large = write_checkpoint(shaped("llama-3.2-1b"), work / "llama-3.2-1b")
    output = work / "build.edge"
    report("edgewise, 0.5B, 24 layers", build(small, output, "--no-load-check"))
    report("edgewise, 0.5B, 48 layers", build(deep, output, "--no-load-check"))
    report("edgewise, 1B", build(large, output, "--no-load-check"))
    report("edgewise, 0.5B, 24 layers, with load check", build(small, output))
    if options.peer:
        python = peer.environment(work / "genai", peer.PACKAGES + peer.BUILDER)
        report("onnxruntime-genai, 0.5B, 24 layers", build_peer(small, work / "peer", python))


if __name__ == "__main__":
    main()
