"""What more compute at inference is worth: answers of examples/arithmetic by every scaler, against budget.

    python benchmarks/scaling.py --work FOLDER --docs docs/scaling.md

Held-out problems, one after the other, on one thread. Scalers that choose among samples are given the same ones, drawn
once; their time is that of some problems, which they work through. A run that was stopped goes on.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from quantization import hardware, insert
from recorded import read, record, replayed
from shapes import DEMO

from edgewise import Runner, build, scale
from edgewise.recipe import Recipe
from edgewise.scaling.answers import last_number
from edgewise.scaling.cascade import LEAST_SURE
from edgewise.scaling.protocol import Candidate
from edgewise.scaling.scale import find_scaler

EXAMPLE = Path(__file__).parents[1] / "examples/arithmetic"
sys.path.insert(0, str(EXAMPLE))
from checker import Checker  # noqa: E402 (takes the example, too)

from problems import problems, value  # noqa: E402 (of the example)

PROMPT, SAMPLES, ROUNDS = 400, 16, 5
BUDGETS = (1, 2, 4, 8, 16, 32)
TIMED = 30  # problems
SAMPLED: Mapping[str, Any] = {"search": {"name": "sample", "temperature": 0.2}, "max_tokens": 120}
GREEDY: Mapping[str, Any] = {"search": "greedy", "max_tokens": 120}


PROBABLE: Mapping[str, Any] = {"name": "logprob", "product": True}
CONFIDENCE = 0.63  # that stops a weighed vote: what takes half of the tokens of 800 other problems
METHODS: Mapping[str, Mapping[str, Any]] = {
    "self-consistency": {"name": "self-consistency"},
    "adaptive-consistency": {"name": "adaptive-consistency"},
    "adaptive-consistency, weighed": {
        "name": "adaptive-consistency",
        "weights": PROBABLE,
        "confidence": CONFIDENCE,
    },
    "deepconf": {"name": "deepconf", "warmup": 4, "top": 8, "batch": 2},
    "best-of-n, by log-probability": {"name": "best-of-n"},
    "weighted best-of-n, by log-probability": {"name": "best-of-n", "extract": "last_number"},
    "weighted best-of-n, exact checker": {"name": "best-of-n", "extract": "last_number", "verifier": Checker()},
}
TREES: Mapping[int, tuple[int, int]] = {1: (1, 1), 2: (2, 1), 4: (2, 2), 8: (4, 2), 16: (4, 4), 32: (8, 4)}
VALUES: Mapping[str, Any] = {"by log-probability": "logprob", "exact checker": Checker()}
HEADING = """\
| method | model | budget | right | tokens | ms | tokens per right answer | ms per right answer |
|---|---|---:|---:|---:|---:|---:|---:|"""


@dataclass(frozen=True)
class Run:
    """What answering all problems came to."""

    right: int
    problems: int
    tokens: int
    seconds: float
    deferred: int = 0  # to the large model

    @property
    def accuracy(self) -> float:
        return self.right / self.problems

    def row(self, label: str, model: str, budget: str) -> str:
        error = sqrt(self.accuracy * (1 - self.accuracy) / self.problems)
        each = (self.tokens / self.problems, 1000 * self.seconds / self.problems)
        cost = (self.tokens / max(1, self.right), 1000 * self.seconds / max(1, self.right))
        figures = " | ".join(f"{value:.0f}" for value in (*each, *cost))
        return f"| {label} | {model} | {budget} | {self.accuracy:.1%} ± {error:.1%} | {figures} |"


Answer = Callable[[str], tuple[str, int, int]]  # of a problem: text, new tokens, the model that answered


def measured(answer: Answer, count: int) -> Run:
    """One problem after the other, in processor time: other processes have their own."""
    right = tokens = deferred = 0
    started = time.process_time()
    for text in islice(problems(1, tests=True), count):
        answered, new, model = answer(text)
        right += last_number(answered) == str(value(text))
        tokens += new
        deferred += model
    return Run(right, count, tokens, time.process_time() - started, deferred)


def greedy(runner: Runner, **more: Any) -> Answer:
    def answer(text: str) -> tuple[str, int, int]:
        result = runner.generate(f"{text}\n", **{**GREEDY, **more})
        return result.text, result.timings.new_tokens, 0

    return answer


def scaled(runners: Runner | Sequence[Runner], scaler: Any, budget: str, **options: Any) -> Answer:
    def answer(text: str) -> tuple[str, int, int]:
        found = scale(runners, f"{text}\n", scaler, budget=budget, seed=0, **options)
        return found.text, found.spent.tokens, found.best.model

    return answer


def from_samples(
    scaler: Mapping[str, Any], budget: int, recorded: Sequence[Path], runners: Sequence[Runner], **options: Any
) -> Run:
    """Of samples that are recorded, of each model; the time is that of some problems, which are worked through."""
    chooser = find_scaler(scaler)
    right = tokens = count = deferred = 0
    for rows in zip(*map(read, recorded), strict=True):
        text = rows[0][0]
        choice, taken = replayed(chooser, f"{text}\n", [samples for _, samples in rows], budget)
        right += last_number(choice.best.text) == str(value(text))
        tokens += taken
        deferred += choice.best.model
        count += 1
    timed = measured(scaled(runners, scaler, str(budget), **{**SAMPLED, **options}), TIMED)
    return Run(right, count, tokens, timed.seconds / timed.tokens * tokens, deferred)


def recorded_by(runner: Runner, path: Path, count: int, samples: int, options: Mapping[str, Any]) -> Path:
    """The file of samples of as many problems; it is gone on with."""
    done = len(path.read_bytes().splitlines()) if path.exists() else 0
    with path.open("a") as file:
        for text in islice(problems(1, tests=True), done, count):
            found = record(runner, f"{text}\n", samples, options)
            file.write(json.dumps({"problem": text, "samples": found}) + "\n")
    return path


def thresholds(small: Runner) -> Iterator[float]:
    """Of the cascade: quantiles of the small model's scores, of problems that are not those of the table."""
    scores = []
    for text in islice(problems(2, tests=False), 200):
        result = small.generate(f"{text}\n", **GREEDY, logprobs=0)
        scores.append(LEAST_SURE.score(Candidate(text=result.text, logprobs=result.logprobs)))
    yield from map(float, np.quantile(scores, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]))


Rows = Iterator[tuple[str, str, str, Callable[[], Run]]]  # method, model, budget, and what measures it


def runs(small: Runner, large: Runner, work: Path, count: int) -> Rows:
    samples = recorded_by(small, work / f"samples-{count}.jsonl", count, max(BUDGETS), SAMPLED)
    others = recorded_by(large, work / f"samples-large-{count}.jsonl", count, max(BUDGETS), SAMPLED)
    yield "greedy", "small", "1", partial(measured, greedy(small), count)
    yield "greedy", "large", "1", partial(measured, greedy(large), count)
    for label, scaler in METHODS.items():
        for budget in BUDGETS:
            yield label, "small", str(budget), partial(from_samples, scaler, budget, [samples], [small])
    for label in ("self-consistency", "adaptive-consistency", "adaptive-consistency, weighed"):
        for budget in BUDGETS:
            yield label, "large", str(budget), partial(from_samples, METHODS[label], budget, [others], [large])
    for label, worth in VALUES.items():
        for budget, (children, width) in TREES.items():
            tree = {"name": "tree", "expansion": {"children": children}, "width": width, "value": worth}
            answer = scaled(small, tree, f"{budget * SAMPLED['max_tokens']}tokens", **SAMPLED)
            yield f"step-level beam, {label}", "small", str(budget), partial(measured, answer, count)
    yield from cascades(small, large, samples, work, count)
    yield from ensembles(small, large, work, count)


def cascades(small: Runner, large: Runner, samples: Path, work: Path, count: int) -> Rows:
    """By each rule: token probabilities, samples that agree, an exact verifier."""
    both = "small, large"
    for threshold in thresholds(small):
        answer = scaled((small, large), {"name": "cascade", "thresholds": [threshold]}, "2", **GREEDY)
        yield "cascade, by token probability", both, f"{threshold:.3f}", partial(measured, answer, count)
    exact = {"name": "cascade", "thresholds": [1.0], "verifier": Checker()}
    yield "cascade, exact checker", both, "2", partial(measured, scaled((small, large), exact, "2", **GREEDY), count)
    others = recorded_by(large, work / f"samples-large-{count}.jsonl", count, max(BUDGETS), SAMPLED)
    for budget in BUDGETS[1:]:
        agree = {"name": "cascade", "thresholds": [0.5], "verifier": "votes", "samples": budget}
        found = partial(from_samples, agree, budget + 1, [samples, others], [small, large])
        yield "cascade, where half agree", both, str(budget), found


def ensembles(small: Runner, large: Runner, work: Path, count: int) -> Rows:
    """Greedy by either mean, and votes of samples."""
    both = "small + large"
    for mean in ("probability", "logprob"):
        answer = greedy(large, search={"name": "ensemble", "mean": mean}, assistants=[small])
        yield f"token ensemble, {mean}", both, "1", partial(measured, answer, count)
    search = {"name": "ensemble", "search": SAMPLED["search"]}
    options = {**SAMPLED, "search": search, "assistants": [small]}
    samples = recorded_by(large, work / f"samples-both-{count}.jsonl", count, max(BUDGETS), options)
    for budget in BUDGETS:
        found = partial(from_samples, METHODS["self-consistency"], budget, [samples], [large], **options)
        yield "token ensemble, self-consistency", both, str(budget), found


def shared(work: Path) -> str:
    """A sentence: samples that share a prefill against as many that do not."""
    path = work / "pycoder.edge"
    if not path.exists():
        build(DEMO, output=path)
    options: Any = {"search": {"name": "sample"}, "max_tokens": 32, "seed": 1}
    with Runner.open(path, threads=1) as runner, Runner.open(path, threads=1, prefix_cache=0) as forgetful:
        text = (DEMO / "heldout.txt").read_text("utf-8")
        ratios = []
        for i in range(ROUNDS):
            prompt = runner.tokenizer.encode(text[4000 * i :])[:PROMPT]
            together = timed(partial(scale, runner, prompt, "best-of-n", budget=SAMPLES, **options))
            apart = SAMPLES * timed(partial(forgetful.generate, prompt, **options))
            ratios.append(apart / together)
    return (
        f"{SAMPLES} samples of 32 tokens after a prompt of {PROMPT}, by the demo model: {np.median(ratios):.1f} times "
        f"({min(ratios):.1f} to {max(ratios):.1f}) as fast as {SAMPLES} runs that share nothing, medians of {ROUNDS}."
    )


def timed(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for bundles and figures")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        small, large = (stack.enter_context(opened(size, options.work)) for size in ("small", "large"))
        rows = []
        for label, model, budget, run_it in runs(small, large, options.work, options.problems):
            path = options.work / f"{label}, {model}, {budget}, {options.problems}.json"
            if not path.exists():
                path.write_text(json.dumps(asdict(run_it())))
            run = Run(**json.loads(path.read_text()))
            rows.append(run.row(label, model, f"{budget} ({run.deferred} deferred)" if run.deferred else budget))
            print(rows[-1], flush=True)
    if options.docs:
        what = f"{options.problems} held-out problems of examples/arithmetic"
        intro = f"{what}, one thread of {hardware()}, milliseconds of processor time; ± is one standard error."
        insert(options.docs, "\n".join([intro, shared(options.work), "", HEADING, *rows]), "scaling")


def opened(size: str, work: Path) -> Runner:
    """The runner of one of the example's models, in floats."""
    path = work / f"{size}.edge"
    if not path.exists():
        build(EXAMPLE / size, output=path, recipe=Recipe())
    return Runner.open(path, threads=1)


if __name__ == "__main__":
    main()
