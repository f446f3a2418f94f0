"""sdk, bench: an answer as a user waits for it: from the text of a prompt to the last piece of text."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import blake3

from edgewise.bench.energy import Energy, Meter
from edgewise.bench.rates import Latency, Rate
from edgewise.bench.speed import DECODE, RUNS, Progress
from edgewise.errors import GenerationError, OptionError

if TYPE_CHECKING:
    from edgewise.runtime.generation import Options
    from edgewise.runtime.runner import Runner


@dataclass(frozen=True)
class Answer:
    """End to end: tokenizer, prefill, choice of tokens and text included.

    The time to the first text ends with the first piece that is not empty. Latencies are those between tokens, of all
    runs together.
    """

    prompt_blake3: str
    prompt_tokens: int
    first_text_s: Latency
    between_tokens_s: Latency | None  # None: there was one token
    rate: Rate  # new tokens by the whole time
    energy: Energy  # of all runs together
    output_blake3: str  # of the text
    repeats: bool  # whether all runs gave the same text


def answer(
    runner: "Runner",
    prompt: str,
    *,
    runs: int = RUNS,
    progress: Progress | None = None,
    **options: Unpack["Options"],
) -> Answer:
    """Measure answers to a prompt, one after the other, after one that is not counted.

    The options are those of `Runner.stream`; by default it is 128 tokens, with seed 0. Raises what that raises, and
    GenerationError where no text comes.
    """
    if runs < 1:
        raise OptionError(f"runs is {runs}; it must be 1 or more")
    asked: Options = {"seed": 0, **options}
    if asked.get("max_tokens") is None:
        asked["max_tokens"] = DECODE
    _once(runner, prompt, asked)
    found = []
    with Meter() as meter:
        for run in range(runs):
            if progress is not None:
                progress("answer", run, runs)
            found.append(_once(runner, prompt, asked))
    texts = {each.text for each in found}
    between = [seconds for each in found for seconds in each.between_s]
    return Answer(
        blake3.blake3(prompt.encode()).hexdigest(),
        found[0].prompt_tokens,
        Latency.of([each.first_text_s for each in found]),
        Latency.of(between) if between else None,
        Rate(found[0].tokens, tuple(each.tokens / each.whole_s for each in found)),
        meter.energy,
        blake3.blake3(found[0].text.encode()).hexdigest(),
        repeats=len(texts) == 1,
    )


@dataclass(frozen=True)
class _Run:
    text: str
    tokens: int
    prompt_tokens: int
    first_text_s: float
    between_s: tuple[float, ...]
    whole_s: float


def _once(runner: "Runner", prompt: str, options: "Options") -> _Run:
    started = last = time.perf_counter()
    first, between, tokens = None, [], 0
    stream = runner.stream(prompt, **options)
    for piece in stream:
        now = time.perf_counter()
        if piece.text and first is None:
            first = now - started
        if piece.tokens:
            if tokens:
                between += [(now - last) / len(piece.tokens)] * len(piece.tokens)
            tokens += len(piece.tokens)
            last = now
    whole = time.perf_counter() - started
    result = stream.result()
    if first is None:
        raise GenerationError("the prompt got no text for an answer: nothing can be measured; give another one")
    return _Run(result.text, tokens, result.timings.prompt_tokens, first, tuple(between), whole)
