"""Bundles timed in turn, on the text that they are for: which experts a token needs depends on it."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

from edgewise import Runner

PREFILL, DECODE, ROUNDS = 256, 128, 7
THREADS = 2


def speeds(bundles: Mapping[str, Path], sequences: np.ndarray) -> dict[str, tuple[float, float]]:
    """Tokens a second of prefill and of decode, medians of runs in turn; one more before them is not counted.

    Decode is given the text's own tokens, so that all bundles compute the same ones.
    """
    with ExitStack() as stack:
        runners = {name: stack.enter_context(Runner.open(path, threads=THREADS)) for name, path in bundles.items()}
        rounds = [
            {name: _timed(runner, sequences[index % len(sequences)].tolist()) for name, runner in runners.items()}
            for index in range(ROUNDS + 1)
        ][1:]
    return {name: (median(r[name][0] for r in rounds), median(r[name][1] for r in rounds)) for name in bundles}


def _timed(runner: Runner, tokens: Sequence[int]) -> tuple[float, float]:
    session = runner.session(capacity=PREFILL + DECODE)
    start = time.perf_counter()
    session.prefill(tokens[:PREFILL])
    middle = time.perf_counter()
    for token in tokens[PREFILL : PREFILL + DECODE]:
        session.decode(token)
    return PREFILL / (middle - start), DECODE / (time.perf_counter() - middle)
