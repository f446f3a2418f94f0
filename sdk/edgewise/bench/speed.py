"""sdk, bench: prefill and decode as llama-bench measures them: random tokens, no tokenizer, no choice of tokens.

`prefill` (pp) appends a prompt to an empty cache at once; `decode` (tg) appends one token at a time, also from an empty
cache. Before them comes a warm-up that is not counted: a whole prompt, and one token.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import blake3
import numpy as np

from edgewise.bench.energy import Energy, Meter
from edgewise.bench.rates import Rate
from edgewise.errors import ContextOverflow, OptionError

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner

Progress = Callable[[str, int, int], None]  # stage, done, total

PREFILL, DECODE, RUNS = 512, 128, 5
CHECKED = 32  # tokens of a greedy continuation, whose hash shows whether two machines compute the same


@dataclass(frozen=True)
class Speed:
    """How fast prompts are taken in, and tokens computed."""

    prefill: Rate
    decode: Rate
    decode_energy: Energy  # of all decode runs together
    output_blake3: str  # of 32 tokens, greedily chosen after a fixed random prompt


def measure(
    runner: "Runner",
    *,
    prefill: int | None = None,
    decode: int | None = None,
    runs: int = RUNS,
    progress: Progress | None = None,
) -> Speed:
    """Measure an open bundle. Tokens: 512 and 128, or what its context holds.

    Raises OptionError for counts below 1, ContextOverflow for those that do not fit.
    """
    prompt = _count("prefill", prefill, PREFILL, runner.model.context)
    new = _count("decode", decode, DECODE, runner.model.context)
    if runs < 1:
        raise OptionError(f"runs is {runs}; it must be 1 or more")
    _prefill_s(runner, prompt, seed=0)
    _decode_s(runner, 1, seed=0)
    prefills, decodes = [], []
    for run in range(runs):
        if progress is not None:
            progress("measure", run, 2 * runs)
        prefills.append(prompt / _prefill_s(runner, prompt, seed=run))
    with Meter() as meter:
        for run in range(runs):
            if progress is not None:
                progress("measure", runs + run, 2 * runs)
            decodes.append(new / _decode_s(runner, new, seed=run))
    return Speed(Rate(prompt, tuple(prefills)), Rate(new, tuple(decodes)), meter.energy, _output(runner))


def _count(name: str, asked: int | None, default: int, context: int) -> int:
    if asked is None:
        return min(default, context)
    if asked < 1:
        raise OptionError(f"{name} is {asked}; it must be 1 or more")
    if asked > context:
        raise ContextOverflow(f"{name} is {asked:,} tokens, and the context is {context:,}")
    return asked


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


def _output(runner: "Runner") -> str:
    count = min(CHECKED, runner.model.context // 2)
    session = runner.session(capacity=2 * count)
    found = [int(session.prefill(_tokens(runner, count, seed=0))[-1].argmax())]
    while len(found) < count:
        found.append(int(session.decode(found[-1])[-1].argmax()))
    return blake3.blake3(np.array(found, "<u4").tobytes()).hexdigest()


def _tokens(runner: "Runner", count: int, seed: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, runner.model.facts.vocab_size, count).tolist()
    return tokens
