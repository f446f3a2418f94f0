"""tests: a process that collects statistics, and is killed if it is told to; prints what it did."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from edgewise.calibration.collect import collect
from edgewise.checkpoint import Checkpoint
from edgewise_exporters.decoder import Decoder

TOKENS = (8, 64)


def sequences(vocabulary: int) -> np.ndarray:
    return np.random.default_rng(3).integers(3, vocabulary, TOKENS)


def main(checkpoint: Path, killed_after: int | None) -> None:
    """Statistics of a checkpoint; killed once so many layers have gone through."""
    reports = []

    def progress(stage: str, done: int, total: int) -> None:
        reports.append(done // TOKENS[0])
        if killed_after is not None and done == (killed_after + 1) * TOKENS[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    model = Decoder().export(Checkpoint.open(checkpoint))
    statistics = collect(model, sequences(160), gram=True, progress=progress)
    print(json.dumps({"inputs": len(statistics), "layers": reports, "peak": peak_memory()}))


def peak_memory() -> int:
    """Bytes; of this program only (`getrusage` remembers the process that was forked for it)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return int(status["VmHWM"].split()[0]) << 10


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
