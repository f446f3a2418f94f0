"""How long generations under way wait for a token while a long prompt is computed beside them, by size of a chunk.

    python benchmarks/scheduler.py model.edge

Three rows decode; then a prompt of 1,024 tokens comes. Prints milliseconds a step without and with it, medians, and
what the prompt takes in all. With one thread it is processor time, which neighbours disturb less.
"""

import argparse
import time
from statistics import median

import numpy as np

from edgewise import Runner, Scheduler

ROWS, PROMPT = 3, 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chunks", type=int, nargs="+", default=[128, 64, 32])
    options = parser.parse_args()
    clock = time.process_time if options.threads == 1 else time.perf_counter
    with Runner.open(options.bundle, threads=options.threads, prefix_cache=0) as runner:
        prompt = np.random.default_rng(0).integers(1, runner.facts.vocab_size, PROMPT).tolist()
        for chunk in options.chunks:
            with Scheduler(runner, chunk=chunk) as scheduler:

                def step(scheduler: Scheduler = scheduler) -> float:
                    started = clock()
                    scheduler.step()
                    return 1000 * (clock() - started)

                for row in range(ROWS):
                    scheduler.submit(prompt[row : row + 64], search="greedy", max_tokens=256)
                before = [step() for _ in range(24)][12:]
                scheduler.submit(prompt, search="greedy", max_tokens=2)
                beside = [step() for _ in range(PROMPT // chunk)]
            means = f"{median(before):.0f} ms a step, {median(beside):.0f} ms beside a prompt"
            print(f"chunk {chunk:3}: {means} that takes {sum(beside):.0f} ms")


if __name__ == "__main__":
    main()
