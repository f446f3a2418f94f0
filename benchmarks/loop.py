"""What the loop adds to a token: greedy and sampled generation beside bare `run_with_iobinding` of the same graph.

    python benchmarks/loop.py model.edge
    python benchmarks/loop.py model.edge --cpu  # on a machine that does other work: processor time, on one thread

All take turns in one process, so that a slow moment of the machine hits each of them. The bare loop runs one binding
at the length that the others reach on average. Prints milliseconds a token: medians over the rounds, and the median of
the differences within a round. Small models show the difference best; the vocabulary is what it depends on.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from edgewise import Runner
from edgewise.runtime.bound import Bound
from edgewise.search.greedy import Greedy
from edgewise.search.penalties import FrequencyPenalty, PresencePenalty, RepetitionPenalty
from edgewise.search.protocol import Processor, Search
from edgewise.search.sample import Sample

Clock = Callable[[], float]

PROMPT = 16
PENALTIES = (RepetitionPenalty(1.1), PresencePenalty(0.1), FrequencyPenalty(0.1))
SEARCHES: dict[str, tuple[Search, tuple[Processor, ...]]] = {
    "greedy": (Greedy(), ()),
    "greedy, penalties": (Greedy(), PENALTIES),
    "sample": (Sample(), ()),
    "sample, top-k 50, top-p 0.9": (Sample(temperature=0.8, top_k=50, top_p=0.9), ()),
    "sample, top-p 0.9": (Sample(top_p=0.9), ()),
    "sample, min-p 0.05": (Sample(min_p=0.05), ()),
    "sample, typical 0.9": (Sample(typical_p=0.9), ()),
    "sample, eta 0.001": (Sample(eta_cutoff=0.001), ()),
    "sample, top-n-sigma 1": (Sample(top_n_sigma=1.0), ()),
    "sample, dynamic temperature": (Sample(temperature_range=0.5), ()),
    "sample, XTC 0.5": (Sample(xtc_probability=0.5), ()),
}


def bare(runner: Runner, tokens: int, clock: Clock) -> float:
    """Milliseconds of one run of the graph: nothing between one run and the next."""
    session = runner.session(capacity=PROMPT + tokens)
    session.prefill(_prompt(runner, PROMPT + tokens // 2))
    session.decode(1)
    bound = session.pool.bound(0, 1)
    assert isinstance(bound, Bound)  # on a bundle whose graph keeps its cache in place
    graph, binding = bound.graph, bound.binding
    started = clock()
    for _ in range(tokens):
        graph.run_with_iobinding(binding)
    return 1000 * (clock() - started) / tokens


def generated(runner: Runner, search: Search, processors: tuple[Processor, ...], tokens: int, clock: Clock) -> float:
    """Milliseconds from one streamed piece to the next, the prefill left out."""
    stream = runner.stream(
        _prompt(runner, PROMPT),
        max_tokens=tokens + 1,
        search=search,
        processors=processors,
        seed=0,
        stop="\0never\0",
    )
    next(stream)
    started = clock()
    count = sum(len(piece.tokens) for piece in stream)
    return 1000 * (clock() - started) / count


def _prompt(runner: Runner, length: int) -> list[int]:
    prompt: list[int] = np.random.default_rng(length).integers(1, 4096, length).tolist()
    return prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    clock = time.thread_time if options.cpu else time.perf_counter
    with Runner.open(options.bundle, threads=1 if options.cpu else options.threads) as runner:
        timers: dict[str, Callable[[], float]] = {"bare": lambda: bare(runner, options.tokens, clock)}
        for name, parts in SEARCHES.items():
            timers[name] = partial(generated, runner, *parts, options.tokens, clock)
        rounds = [{name: timer() for name, timer in timers.items()} for _ in range(options.rounds + 1)][1:]
        print(f"vocabulary {runner.model.facts.vocab_size}, {options.rounds} rounds of {options.tokens} tokens")
        for name in timers:
            times = [each[name] for each in rounds]
            added = median(each[name] - each["bare"] for each in rounds)
            print(f"{name:30} {median(times):8.3f} ms  {added:+8.3f} ms")


if __name__ == "__main__":
    main()
