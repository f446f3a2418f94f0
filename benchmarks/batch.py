"""What it gains to decode several rows in one run of the graph, and by how much their scores differ from a row's alone.

    python benchmarks/shapes.py qwen2.5-0.5b /tmp/checkpoint
    edgewise build /tmp/checkpoint -o /tmp/model.edge
    python benchmarks/batch.py /tmp/model.edge

Rows of the same length, batches of each size in turn. Prints for each size the median of the ratios of a round, and
milliseconds a step, medians over the rounds. With one thread it is processor time, which neighbours disturb less.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from edgewise.bundle.read import Bundle
from edgewise.runtime.batch import decode
from edgewise.runtime.model import Model
from edgewise.runtime.pool import Pool
from edgewise.runtime.session import Session

SIZES = (1, 2, 3, 4, 8)


def rows_of(model: Model, length: int) -> list[Session]:
    """Sessions side by side, each with tokens of its own."""
    pool = Pool(model, capacity=length + 1, slots=max(SIZES))
    sessions = [Session(model, capacity=length + 1, pool=pool) for _ in range(max(SIZES))]
    random = np.random.default_rng(0)
    for session in sessions:
        session.prefill(random.integers(0, model.facts.vocab_size, length).tolist())
    return sessions


def step(sessions: Sequence[Session], token: int) -> list[np.ndarray]:
    """The scores of each row after one more token, which is forgotten again."""
    appends = [session.append((token,)) for session in sessions]
    decode(appends)
    scores = [append.result()[0] for append in appends]
    for session in sessions:
        session.rewind(session.length - 1)
    return scores


def difference(sessions: Sequence[Session]) -> float:
    """The largest, by the largest score, between rows of a batch and the same rows one after another."""
    beside = [scores.copy() for scores in step(sessions, 7)]
    alone = [step([session], 7)[0] for session in sessions]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(alone, beside, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 2048])
    options = parser.parse_args()
    clock = time.process_time if options.threads == 1 else time.perf_counter
    bundle = Bundle.open(options.bundle)
    model = Model.load(bundle.path, bundle.manifest, threads=options.threads)
    for length in options.lengths:
        sessions = rows_of(model, length)
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for round_ in range(options.rounds + 1):
            for size, taken in times.items():
                started = clock()
                step(sessions[:size], round_)
                if round_:  # the first one warms up
                    taken.append(1000 * (clock() - started))
        for size, taken in times.items():
            gain = median(size * alone / here for alone, here in zip(times[1], taken, strict=True))
            off = difference(sessions[:size])
            print(f"{length:5} tokens, {size} rows: {gain:.2f} times; {median(taken):.0f} ms a step; apart {off:.1e}")


if __name__ == "__main__":
    main()
