"""Speed of speculative decoding by how many drafted tokens are accepted, beside plain greedy search.

    python benchmarks/shapes.py qwen2.5-0.5b /tmp/checkpoint
    python benchmarks/shapes.py qwen2.5-0.5b /tmp/small --layers 2
    edgewise build /tmp/checkpoint -o /tmp/model.edge
    edgewise build /tmp/small -o /tmp/draft.edge
    python benchmarks/speculation.py /tmp/model.edge --draft /tmp/draft.edge --docs docs/speculation.md

Random models agree on nothing, so drafts are told: they know what the target will say, and are wrong with a given
probability at each token. All else is real: prompt lookup searches, the draft bundle computes, the target verifies, and
the width adapts by what it measures. All take turns in one process. Prints ratios: medians over the rounds of the ratio
within a round; above 1 is faster than greedy search. With one thread it is processor time, which neighbours disturb
less, for the width too.
"""

import argparse
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from quantization import insert

from edgewise import Runner
from edgewise.runtime.result import Result
from edgewise.search.ahead import Clock, Drafter, Speculation, Trust, ahead
from edgewise.search.draft import Draft
from edgewise.search.greedy import Greedy
from edgewise.search.lookup import RECENT, WORTH, Lookup
from edgewise.search.pace import Pace
from edgewise.search.protocol import Context, FloatArray, Flow, Reply, Request, Search

MARK = "speculation"
PROMPT = 64
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
Make = Callable[[Context, "Oracle"], Drafter]


class Oracle:
    """Knows how a text goes on, and tells the truth with a given probability."""

    def __init__(self, text: tuple[int, ...], share: float) -> None:
        self._text = text
        self.share = share
        self._rng = np.random.default_rng(0)

    def right(self) -> bool:
        return bool(self._rng.random() < self.share)

    def told(self, place: int) -> int:
        token = self._text[place % len(self._text)]
        return token if self.right() else token + 1


class ToldLookup(Lookup):
    """Searches as lookup does, and drafts what it is told; it is as right as that."""

    def __init__(self, context: Context, oracle: Oracle) -> None:
        super().__init__()
        self._oracle = oracle
        self._told = oracle.share

    def add(self, token: int) -> None:
        super().add(token)
        self._told += (self._oracle.right() - self._told) / RECENT

    def trust(self) -> Trust:
        return Trust.FULL if self._told >= WORTH else Trust.NONE

    def promise(self) -> int:
        return max(1, super().promise())

    def draft(self, count: int) -> Generator[Request, Reply, tuple[int, ...]]:
        yield from super().draft(count)
        return tuple(self._oracle.told(len(self._text) + i) for i in range(count))


class ToldDraft(Draft):
    """Computes as a draft bundle does, and drafts what it is told."""

    def __init__(self, context: Context, oracle: Oracle) -> None:
        super().__init__(context, self._choose_told)
        self._oracle = oracle
        self._place = 0

    def draft(self, count: int) -> Generator[Request, Reply, tuple[int, ...]]:
        self._place = len(self._text) - 1
        return (yield from super().draft(count))

    def _choose_told(self, scores: FloatArray) -> int:
        scores.argmax()
        self._place += 1
        return self._oracle.told(self._place)


@dataclass(frozen=True)
class Told(Search):
    """Speculative greedy search with drafts that are told."""

    make: Make
    oracle: Oracle
    clock: Clock
    width: int | None = None
    name = "told"
    assistants = 1

    def flow(self, context: Context) -> Flow:
        by = Speculation(self.make(context, self.oracle), Pace(self.width), self.clock)
        return ahead(Greedy().flow(context), context, by)


class Nothing(Lookup):
    """Finds nothing."""

    def promise(self) -> int:
        super().promise()
        return 0


@dataclass(frozen=True)
class Run:
    """One of those that take turns."""

    column: str
    share: float
    search: Search
    assistants: tuple[Runner, ...] = ()


def runs(draft: Runner | None, text: tuple[int, ...], clock: Clock) -> Iterator[Run]:
    yield Run("greedy", 0, Greedy())
    yield Run("nothing", 0, Told(lambda *_: Nothing(), Oracle(text, 0), clock))
    for share in SHARES:
        yield Run("lookup", share, Told(ToldLookup, Oracle(text, share), clock))
        if draft:
            yield Run("draft", share, Told(ToldDraft, Oracle(text, share), clock), (draft,))


def generated(runner: Runner, run: Run, prompt: list[int], tokens: int, clock: Clock) -> tuple[Result, float]:
    """What it gives, and the seconds from its first token to the last."""
    stream = runner.stream(
        prompt, max_tokens=tokens, search=run.search, assistants=run.assistants, stop="\0never\0", processors=(NoEnd(),)
    )
    next(stream)
    started = clock()
    result = stream.result()
    return result, clock() - started


class NoEnd:
    """Keeps a random model from ending its text."""

    def start(self, prompt: tuple[int, ...]) -> None: ...

    def advance(self, state: None, tokens: tuple[int, ...]) -> None: ...

    def apply(self, state: None, logits: FloatArray) -> FloatArray:
        logits[0] = -np.inf
        return logits


def steps(runner: Runner, rounds: int, depth: int, clock: Clock) -> dict[int, float]:
    """Milliseconds of a step with so many tokens, medians of runs in turn."""
    session = runner.session(capacity=depth + max(SIZES))
    session.prefill(_prompt(runner, depth))
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            for _ in range(2):  # the first binds the shape
                session.rewind(depth)
                started = clock()
                session.prefill(range(1, size + 1), scores=size)
                seconds = clock() - started
            taken[size].append(1000 * seconds)
    return {size: median(times) for size, times in taken.items()}


def _prompt(runner: Runner, length: int) -> list[int]:
    prompt: list[int] = np.random.default_rng(length).integers(1, 4096, length).tolist()
    return prompt


def table(runner: Runner, draft: Runner | None, clock: Clock, *, tokens: int, rounds: int) -> Iterator[str]:
    prompt = _prompt(runner, PROMPT)
    pairs = Told(lambda *_: Nothing(), Oracle((0,), 0), clock, width=1)  # each step as long as if it checked a draft
    text = (*prompt, *generated(runner, Run("", 0, pairs), prompt, tokens, clock)[0].tokens)
    results: dict[tuple[str, float], list[tuple[Result, float]]] = {}
    for round_ in range(rounds + 1):
        for run in runs(draft, text, clock):
            result, seconds = generated(runner, run, prompt, tokens, clock)
            if round_:  # the first one warms up
                results.setdefault((run.column, run.share), []).append((result, seconds))
    plain = [seconds for _, seconds in results["greedy", 0]]
    yield "| drafts that are right | lookup: accepted a step | speed | draft bundle: accepted a step | speed |"
    yield "|---:|---:|---:|---:|---:|"
    nothing = median(a / b for a, (_, b) in zip(plain, results["nothing", 0], strict=True))
    yield f"| none are found | | {nothing:.2f} | | |"
    for share in SHARES:
        cells = []
        for column in ("lookup", "draft"):
            found = results.get((column, share), [])
            lengths = [each.drafts.mean_accepted or 0.0 if each.drafts else 0.0 for each, _ in found]
            ratios = [a / b for a, (_, b) in zip(plain, found, strict=False)]
            cells += [f"{median(lengths):.2f}", f"{median(ratios):.2f}"] if found else ["", ""]
        yield f"| {share:.0%} | {' | '.join(cells)} |"
    yield ""
    yield f"Greedy search: {(tokens - 1) / median(plain):.1f} tokens/s."


def report(runner: Runner, draft: Runner | None, options: argparse.Namespace) -> Iterator[str]:
    clock = time.process_time if options.threads == 1 else time.perf_counter
    times = steps(runner, options.rounds, PROMPT + options.tokens // 2, clock)
    yield "| tokens in a step | " + " | ".join(map(str, times)) + " |"
    yield "|---|" + "---:|" * len(times)
    yield "| time | " + " | ".join(f"{ms / times[1]:.2f}" for ms in times.values()) + " |"
    yield ""
    yield from table(runner, draft, clock, tokens=options.tokens, rounds=options.rounds)
    yield ""
    threads = f"threads: {options.threads}" if options.threads else "a thread for each"
    yield f"{os.cpu_count()} cores, {threads}; {options.rounds} rounds of {options.tokens} tokens after {PROMPT}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--draft", help="a smaller bundle of the same tokenizer")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--docs", type=Path, help="a page whose tables are replaced")
    options = parser.parse_args()
    runner = Runner.open(options.bundle, threads=options.threads)
    draft = Runner.open(options.draft, threads=options.threads) if options.draft else None
    text = "\n".join(report(runner, draft, options))
    print(text)
    if options.docs:
        insert(options.docs, text, MARK)


if __name__ == "__main__":
    main()
