"""One edgewise bundle, timed on request: a line "PREFILL DECODE SEED" on stdin gives seconds of each on stdout."""

import sys
import time

import numpy as np

from edgewise import Runner


def measure(runner: Runner, prefill: int, decode: int, seed: int) -> tuple[float, float]:
    vocabulary = runner.facts.vocab_size
    tokens = np.random.default_rng(seed).integers(1, vocabulary, prefill).tolist()
    session = runner.session(capacity=prefill + decode + 1)
    start = time.perf_counter()
    token = int(session.prefill(tokens)[-1].argmax())
    middle = time.perf_counter()
    for _ in range(decode):
        token = int(session.decode(token).argmax())
    return middle - start, time.perf_counter() - middle


def main() -> None:
    with Runner.open(sys.argv[1], threads=2) as runner:
        print("ready", flush=True)
        for line in sys.stdin:
            prefill, decode, seed = map(int, line.split())
            print(*measure(runner, prefill, decode, seed), flush=True)


if __name__ == "__main__":
    main()
