"""What a cache of prefixes, a prompt in a file and a window cost and save, on a bundle of yours.

    python benchmarks/prefixes.py model.edge

Seconds to the first token of a prompt that is computed, that is known, and that is read from a file by a runner that
has just been opened; then what it takes to forget an eighth of a full context, and to turn the keys that stay.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from edgewise.bundle.manifest import CHUNK
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from edgewise.runtime.window import Window

RUNS = 3


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def first_token(runner: Runner, prompt: list[int]) -> float:
    found = runner.generate(prompt, max_tokens=1, search="greedy").timings.time_to_first_token_s
    assert found is not None
    return found


def prompts(bundle: str, length: int, path: Path) -> None:
    computed, known, loaded, opened = [], [], [], []
    with Runner.open(bundle, prefix_cache=1 << 32) as runner:
        for seed in range(RUNS):
            prompt = np.random.default_rng(seed).integers(4, runner.facts.vocab_size, length).tolist()
            computed.append(first_token(runner, prompt))
            known.append(first_token(runner, prompt))
        kept = runner.save_prefix(prompt, path)
    for _ in range(RUNS):
        with Runner.open(bundle, prefix_cache=1 << 32) as runner:
            loaded.append(seconds(lambda: runner.load_prefix(path)))
            opened.append(first_token(runner, prompt))
    print(f"a prompt of {length:,} tokens, {kept:,} of them in whole blocks of {CHUNK}: {path.stat().st_size:,} bytes")
    print(f"computed {median(computed):.3f} s; known {median(known):.3f} s")
    print(f"from a file {median(opened):.3f} s, after {median(loaded):.3f} s to read it")


def window(bundle: str, context: int) -> None:
    with Runner.open(bundle, context=context) as runner:
        session = Session(runner.model, capacity=context, window=Window())
        session.prefill(np.random.default_rng(0).integers(4, runner.facts.vocab_size, context).tolist())
        drop = context // 8
        again, turned = session.export(0, drop), []
        for _ in range(RUNS):
            turned.append(seconds(lambda: session.append([5])))  # nothing is computed yet, but the cache has room
            session.restore([5] * drop, again)
    print(f"a full context of {context:,}: {median(turned) * 1e3:.1f} ms each {drop} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--length", type=int, default=1040)
    parser.add_argument("--context", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prompts(options.bundle, options.length, Path(folder) / "prompt")
    window(options.bundle, options.context)


if __name__ == "__main__":
    main()
