"""Prefill 512 and decode 128 on 2 threads: an edgewise bundle beside onnxruntime-genai on its own int4 build.

    python benchmarks/speed.py qwen2.5-0.5b --work /tmp/edgewise-benchmarks

Both models are loaded once, in processes of their own, and measured in turn with fresh random prompts, so that a slow
moment of the machine hits both. Quotes medians, and the median of the ratios of neighbouring runs. The first run of
each is not counted.
"""

import argparse
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType

import peer
from shapes import SHAPES, shaped, write_checkpoint

import edgewise

WORKERS = Path(__file__).parent / "workers"


@dataclass
class Worker:
    """A process that measures one model on request."""

    process: "subprocess.Popen[str]"

    @classmethod
    def start(cls, python: Path, script: str, *arguments: object) -> "Worker":
        worker = cls.begin(python, script, *arguments)
        worker.read()
        return worker

    @classmethod
    def begin(cls, python: Path, script: str, *arguments: object) -> "Worker":
        """A worker that has yet to say, on a line, that it is ready."""
        command = [str(python), str(WORKERS / script), *map(str, arguments)]
        pipe = subprocess.PIPE
        return cls(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=peer.offline()))

    def measure(self, prefill: int, decode: int, seed: int) -> tuple[float, float]:
        """Tokens a second of prefill and of decode."""
        assert self.process.stdin is not None
        print(prefill, decode, seed, file=self.process.stdin, flush=True)
        seconds = [float(word) for word in self.read().split()]
        return prefill / seconds[0], decode / seconds[1]

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended: {self.process.args!r}")
        return line

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.kill()


def compare(ours: Worker, theirs: Worker, *, prefill: int, decode: int, rounds: int) -> None:
    rows = []
    for seed in range(rounds + 1):
        rows.append((*ours.measure(prefill, decode, seed), *theirs.measure(prefill, decode, seed)))
    rows = rows[1:]
    for name, mine, other in (("prefill", 0, 2), ("decode", 1, 3)):
        ratios = sorted(row[mine] / row[other] for row in rows)
        print(
            f"{name:8} edgewise {median(row[mine] for row in rows):7.1f} tokens/s   "
            f"onnxruntime-genai {median(row[other] for row in rows):7.1f}   "
            f"ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints, builds and environments")
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    work: Path = options.work
    checkpoint = write_checkpoint(shaped(options.shape), work / options.shape)
    bundle = work / f"{options.shape}.edge"
    if not bundle.exists():
        edgewise.build(checkpoint, target="cpu-x64", output=bundle)
    python = peer.environment(work / "genai", peer.PACKAGES + peer.BUILDER)
    other = peer.build(checkpoint, work / f"{options.shape}-genai", python)
    vocabulary = SHAPES[options.shape].vocab_size
    with (
        Worker.start(peer.here(), "bundle.py", bundle) as ours,
        Worker.start(python, "genai.py", other, vocabulary) as theirs,
    ):
        compare(ours, theirs, prefill=options.prefill, decode=options.decode, rounds=options.rounds)


if __name__ == "__main__":
    main()
