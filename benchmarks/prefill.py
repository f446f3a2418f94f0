"""How much faster the graph of long prompts is than the one that decodes: `edgewise build ... --prefill int8`.

    python benchmarks/shapes.py qwen2.5-0.5b /tmp/checkpoint
    edgewise build /tmp/checkpoint --prefill int8 -o /tmp/model.edge
    python benchmarks/prefill.py /tmp/model.edge

Prompts of several lengths, the graphs in turn in one process. Prints, for each length, the median of the ratios of a
round, and milliseconds: medians over the rounds. With one thread it is processor time, which neighbours disturb less.
"""

import argparse
import time
from statistics import median

import numpy as np

from edgewise.bundle.manifest import CHUNK
from edgewise.bundle.read import Bundle
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session

LENGTHS = (16, 32, 64, 128, 256, 512, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    clock = time.process_time if options.threads == 1 else time.perf_counter
    bundle = Bundle.open(options.bundle)
    models = [Model.load(bundle.path, bundle.manifest, threads=options.threads, only=g) for g in ("decode", "prefill")]
    chunks = CHUNK, bundle.manifest.chunk
    sessions = [Session(m, capacity=max(LENGTHS), chunk=c) for m, c in zip(models, chunks, strict=True)]
    tokens = np.random.default_rng(0).integers(0, bundle.manifest.facts.vocab_size, max(LENGTHS)).tolist()
    for length in LENGTHS:
        taken: list[list[float]] = [[], []]
        for round_ in range(options.rounds + 1):
            for session, times in zip(sessions, taken, strict=True):
                session.rewind(0)
                started = clock()
                session.prefill(tokens[:length])
                if round_:  # the first one warms up
                    times.append(1000 * (clock() - started))
        ratio = median(decode / prefill for decode, prefill in zip(*taken, strict=True))
        print(f"{length:4} tokens: {ratio:.2f} times; {median(taken[0]):.0f} ms and {median(taken[1]):.0f} ms")


if __name__ == "__main__":
    main()
