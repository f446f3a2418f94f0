"""One edgewise bundle, a batch of rows, timed on request: "PREFILL DECODE SEED" on stdin gives seconds on stdout."""

import sys
import time

import numpy as np

from edgewise import Runner
from edgewise.runtime.batch import decode
from edgewise.runtime.pool import Pool
from edgewise.runtime.session import Session


def measure(runner: Runner, rows: int, prompt: int, new: int, seed: int) -> tuple[float, float]:
    """Seconds for the prompts of all rows, one after another, and for `new` tokens of each row, in steps of all."""
    model = runner.model
    pool = Pool(model, capacity=prompt + new + 1, slots=rows)
    sessions = [Session(model, capacity=prompt + new + 1, pool=pool) for _ in range(rows)]
    random = np.random.default_rng(seed)
    start = time.perf_counter()
    for session in sessions:
        session.prefill(random.integers(1, model.facts.vocab_size, prompt).tolist())
    middle = time.perf_counter()
    for _ in range(new):
        appends = [session.append((1,)) for session in sessions]
        decode(appends)
        for append in appends:
            append.result()
    return middle - start, time.perf_counter() - middle


def main() -> None:
    bundle, rows = sys.argv[1], int(sys.argv[2])
    with Runner.open(bundle) as runner:
        print("ready", flush=True)
        for line in sys.stdin:
            print(*measure(runner, rows, *map(int, line.split())), flush=True)


if __name__ == "__main__":
    main()
