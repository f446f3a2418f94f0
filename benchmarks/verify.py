"""Seconds per gigabyte to verify a bundle when it is opened: every file read and hashed, with a warm page cache.

    python benchmarks/verify.py --work /tmp/edgewise-benchmarks

Builds an int4 bundle of a random checkpoint shaped like Llama-3.2-1B; medians of 15 runs, each way in turn.
"""

import argparse
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from shapes import shaped, write_checkpoint

import edgewise
from edgewise.bundle.read import Bundle

RUNS = 15


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint and its bundle")
    work: Path = parser.parse_args().work
    checkpoint = write_checkpoint(shaped("llama-3.2-1b"), work / "llama-3.2-1b")
    bundle = edgewise.build(checkpoint, output=work / "verify.edge", force=True, load_check=False)
    gigabytes = sum(file.bytes for file in bundle.manifest.files.values()) / 1e9
    weights = bundle.graph().with_name("model.onnx_data")

    def sha256() -> None:
        with weights.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    ways: dict[str, Callable[[], object]] = {
        "open": lambda: Bundle.open(bundle.path, verify=False),
        "open and verify": lambda: Bundle.open(bundle.path),
        "SHA-256 of the weights, for comparison": sha256,
    }
    runs = [{name: seconds(way) for name, way in ways.items()} for _ in range(RUNS)]
    print(f"{gigabytes:.3f} GB")
    for name in ways:
        print(f"{name:40} {median(run[name] for run in runs) / gigabytes:6.3f} s/GB")


if __name__ == "__main__":
    main()
