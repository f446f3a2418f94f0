"""How much faster the graph of long prompts is than the one that decodes: `edgewise build ... --prefill int8`.

    python benchmarks/shapes.py qwen2.5-0.5b /tmp/checkpoint
    edgewise build /tmp/checkpoint --prefill int8 -o /tmp/model.edge
    python benchmarks/prefill.py /tmp/model.edge --docs docs/prefill.md

Prompts of several lengths, the graphs in turn in one process. Prints, for each length, the median of the ratios of a
round, and milliseconds: medians over the rounds. With one thread it is processor time, which neighbours disturb less.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
from quantization import hardware, insert

from edgewise.bundle.manifest import CHUNK
from edgewise.bundle.read import Bundle
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session

LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
MARK = "prefill"


def opened(bundle: Bundle, threads: int) -> list[Session]:
    """The graph that decodes, and that of prompts, each with the chunks that are best for it."""
    models = [Model.load(bundle.path, bundle.manifest, threads=threads, only=name) for name in ("decode", "prefill")]
    chunks = CHUNK, bundle.manifest.chunk
    return [Session(m, capacity=max(LENGTHS), chunk=c) for m, c in zip(models, chunks, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    clock = time.process_time if options.threads == 1 else time.perf_counter
    bundle = Bundle.open(options.bundle)
    sessions = opened(bundle, options.threads)
    tokens = np.random.default_rng(0).integers(0, bundle.manifest.language_model.vocab_size, max(LENGTHS)).tolist()
    ratios = []
    for length in LENGTHS:
        taken: list[list[float]] = [[], []]
        for round_ in range(options.rounds + 1):
            for session, times in zip(sessions, taken, strict=True):
                session.rewind(0)
                started = clock()
                session.prefill(tokens[:length])
                if round_:  # the first one warms up
                    times.append(1000 * (clock() - started))
        ratios.append(median(decode / prefill for decode, prefill in zip(*taken, strict=True)))
        print(f"{length:4} tokens: {ratios[-1]:.2f} times; {median(taken[0]):.0f} ms and {median(taken[1]):.0f} ms")
    if options.docs:
        insert(options.docs, table(ratios, options.threads, options.rounds), MARK)


def table(ratios: list[float], threads: int, rounds: int) -> str:
    measured = "processor time" if threads == 1 else "time"
    return "\n".join(
        [
            f"Times faster, {measured} with {threads} thread{'s' * (threads > 1)}, medians of {rounds} rounds on",
            f"{hardware()}:",
            "",
            f"| tokens at once | {' | '.join(map(str, LENGTHS))} |",
            f"|---|{'---:|' * len(LENGTHS)}",
            f"| ratio | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |",
        ]
    )


if __name__ == "__main__":
    main()
