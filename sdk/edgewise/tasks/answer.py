"""sdk, tasks: a task, put to a runner, and whether what comes back is right."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgewise.confined.run import run_program
from edgewise.runtime.result import Result
from edgewise.runtime.runner import Runner
from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.likelihood import Likelihood
from edgewise.scaling.programs import program_of
from edgewise.scaling.protocol import Candidate, Scaler
from edgewise.scaling.scale import scale
from edgewise.search.utilities import token_f1
from edgewise.tasks.result import Item
from edgewise.tasks.task import Task

SURE = Likelihood()


@dataclass(frozen=True, kw_only=True)
class Method:
    """How answers are found: once through the model, or by a scaler within a budget for each task."""

    extract: str | Extract = "whole"
    samples: int = 1  # of a task with tests
    options: Mapping[str, Any] = field(default_factory=dict)  # of every generation
    scaler: Scaler | None = None
    budget: str = "16"
    sure: Likelihood = SURE  # how confident an answer is

    @property
    def label(self) -> str:
        if self.scaler:
            return f"{self.scaler.name}, budget {self.budget}"
        search = self.options.get("search") or "the checkpoint's search"
        name = search if isinstance(search, str) else search["name"] if isinstance(search, Mapping) else search.name
        return f"{name}, {self.samples} samples" if self.samples > 1 else str(name)


def generated(runner: Runner, tasks: Sequence[Task], method: Method, variant: str) -> list[Item]:
    """Tasks with answers or tests, together; with a scaler one after the other."""
    if method.scaler:
        return [_scaled(runner, task, method, variant) for task in tasks]
    options = {**method.options, "logprobs": 0}
    if method.samples > 1:
        options["n"] = method.samples
    prompts = [_prompt(runner, task) for task in tasks]
    results = runner.generate_batch(prompts, slots=len(tasks), **options)
    return [_judged(task, result, method, variant) for task, result in zip(tasks, results, strict=True)]


def chosen(runner: Runner, task: Task, variant: str) -> Item:
    """Which of the choices is the most probable after the prompt, by log-likelihood per byte (as lm-eval's acc_norm).

    The confidence is its share, of all choices.
    """
    started = time.perf_counter()
    scores = runner.scores(_prompt(runner, task), task.choices)
    mean = np.array([s.total / len(c.encode()) for s, c in zip(scores, task.choices, strict=True)])
    best = int(mean.argmax())
    totals = np.array([score.total for score in scores])
    share = np.exp(totals - totals.max()) / np.exp(totals - totals.max()).sum()
    return Item(
        id=task.id,
        kind=task.kind,
        variant=variant,
        right=float(best == task.right),
        confidence=float(share[best]),
        text=task.choices[best],
        seconds=time.perf_counter() - started,
    )


def foretold(runner: Runner, task: Task) -> Item:
    """How probable a text is, but for its first token."""
    started = time.perf_counter()
    score = runner.score("", task.text)
    return Item(
        id=task.id,
        kind=task.kind,
        right=0.0,
        nats=-score.total,
        bytes=len(runner.tokenizer.decode(score.tokens).encode()),
        samples=len(score.tokens),
        seconds=time.perf_counter() - started,
    )


def _prompt(runner: Runner, task: Task) -> str | tuple[int, ...]:
    return task.prompt if isinstance(task.prompt, str) else runner.encode_chat(task.prompt)


def _scaled(runner: Runner, task: Task, method: Method, variant: str) -> Item:
    assert method.scaler
    found = scale(runner, task.prompt, method.scaler, budget=method.budget, **method.options)
    text = found.text if found.best.answer is None else found.answer
    right, f1 = _right(task, text, found.text, method)
    return Item(
        id=task.id,
        kind=task.kind,
        variant=variant,
        right=right,
        f1=f1,
        passed=int(right),
        text=found.text,
        finish_reason=found.best.finish_reason,
        tokens=found.spent.tokens,
        seconds=found.spent.seconds,
    )


def _judged(task: Task, result: Result, method: Method, variant: str) -> Item:
    each = [_right(task, completion.answer, completion.text, method) for completion in result.completions]
    first, timings = result.completions[0], result.timings
    candidate = Candidate(text=first.text, tokens=first.tokens, logprobs=first.logprobs)
    decoding = timings.total_s - (timings.time_to_first_token_s or 0.0)
    return Item(
        id=task.id,
        kind=task.kind,
        variant=variant,
        right=sum(right for right, _ in each) / len(each),
        f1=each[0][1],
        confidence=method.sure.score(candidate),
        passed=round(sum(right for right, _ in each)),
        samples=len(each),
        text=first.text,
        finish_reason=first.finish_reason,
        tokens=timings.new_tokens,
        seconds=timings.total_s,
        first_s=timings.time_to_first_token_s,
        token_s=decoding / (len(first.tokens) - 1) if len(first.tokens) > 1 else None,
    )


def _right(task: Task, answer: str, text: str, method: Method) -> tuple[float, float | None]:
    """Whether a task is solved, and the F1 of words where an answer is asked for."""
    if task.kind == "tests":
        before = task.prompt if isinstance(task.prompt, str) else ""
        return float(run_program(program_of(before, text), task.tests).passed), None
    extract = find_extract(method.extract)
    found = extract(answer)
    right = found is not None and found in {extract(each) for each in task.answers}
    return float(right), max(token_f1(found or "", extract(each) or "") for each in task.answers)


def perplexity(items: Sequence[Item]) -> float:
    """Of texts, per token."""
    return math.exp(sum(item.nats or 0.0 for item in items) / sum(item.samples for item in items))
