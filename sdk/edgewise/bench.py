"""sdk: how fast a bundle is on this machine, as llama-bench measures: random tokens, no tokenizer, no sampling.

`prefill` appends a prompt to an empty cache at once; `decode` appends one token at a time, also from an empty cache.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewise.errors import OptionError

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class Rate:
    """Tokens per second, over so many runs of so many tokens: the mean, and the standard deviation."""

    tokens: int
    runs: int
    mean: float
    deviation: float


@dataclass(frozen=True)
class Speed:
    """What was measured, and with how many threads."""

    prefill: Rate
    decode: Rate
    threads: int
    load_s: float
    peak_memory_bytes: int | None


def measure(
    path: str | Path,
    *,
    prefill: int = 512,
    decode: int = 128,
    runs: int = 5,
    threads: int | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Speed:
    """Open a bundle and measure it, after a warm-up. Counts beyond its context are cut to the context.

    Raises what `Runner.open` raises, and OptionError for counts below 1.
    """
    for name, value in (("prefill", prefill), ("decode", decode), ("runs", runs)):
        if value < 1:
            raise OptionError(f"{name} is {value}; it must be 1 or more")
    from edgewise.runtime.result import peak_memory
    from edgewise.runtime.runner import Runner
    from edgewise.runtime.threads import physical_cores

    with Runner.open(path, threads=threads, verify=verify) as runner:
        counts = [min(count, runner.model.context) for count in (prefill, decode)]
        _prefill_s(runner, counts[0], seed=0)
        _decode_s(runner, 1, seed=0)
        seconds: tuple[list[float], list[float]] = ([], [])
        for run in range(runs):
            if progress is not None:
                progress("measure", run, runs)
            seconds[0].append(_prefill_s(runner, counts[0], seed=run))
            seconds[1].append(_decode_s(runner, counts[1], seed=run))
        return Speed(
            _rate(counts[0], seconds[0]),
            _rate(counts[1], seconds[1]),
            physical_cores() if threads is None else threads,
            runner.load_s,
            peak_memory(),
        )


def _prefill_s(runner: "Runner", count: int, *, seed: int) -> float:
    session, tokens = runner.session(capacity=count), _tokens(runner, count, seed)
    started = time.perf_counter()
    session.prefill(tokens)
    return time.perf_counter() - started


def _decode_s(runner: "Runner", count: int, *, seed: int) -> float:
    session, tokens = runner.session(capacity=count), _tokens(runner, count, seed)
    started = time.perf_counter()
    for token in tokens:
        session.decode(token)
    return time.perf_counter() - started


def _tokens(runner: "Runner", count: int, seed: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, runner.model.facts.vocab_size, count).tolist()
    return tokens


def _rate(tokens: int, seconds: list[float]) -> Rate:
    rates = [tokens / each for each in seconds]
    return Rate(tokens, len(rates), statistics.fmean(rates), statistics.stdev(rates) if len(rates) > 1 else 0.0)
