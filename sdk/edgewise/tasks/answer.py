"""sdk, tasks: a task, put to a runner, and whether what comes back is right."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from edgewise.confined.run import run_program
from edgewise.errors import GenerationError
from edgewise.runtime.encoder import Encoder
from edgewise.runtime.result import Result
from edgewise.runtime.runner import Runner
from edgewise.runtime.scheduler import Scheduler
from edgewise.scaling.answers import find_extract
from edgewise.scaling.likelihood import Likelihood
from edgewise.scaling.programs import program_of
from edgewise.scaling.protocol import Candidate
from edgewise.scaling.scale import scale
from edgewise.search.utilities import token_f1
from edgewise.tasks.method import Method
from edgewise.tasks.result import Item
from edgewise.tasks.task import Task

Models = tuple[Runner, *tuple[Runner | Encoder, ...]]  # the first answers; some assist, some verify
SURE = Likelihood()


@dataclass(frozen=True)
class Answered:
    """A task, answered, and the seconds between one token of the answer and the next."""

    item: Item
    between_s: tuple[float, ...] = ()


def generated(models: Models, tasks: Sequence[Task], method: Method, variant: str) -> list[Answered]:
    """Tasks with answers or tests, together; with a scaler one after the other. Models 1, 2, ... assist the first."""
    if method.scaler:
        return [_scaled(models, task, method, variant) for task in tasks]
    runner, *assistants = models
    options = {**method.options, "logprobs": 0, "assistants": assistants}
    if method.samples > 1:
        options["n"] = method.samples
    found = []
    with Scheduler(runner, slots=len(tasks)) as scheduler:
        streams = []
        for task in tasks:
            with _named(task):
                streams.append(scheduler.submit(_prompt(runner, task), **options))
        for task, stream in zip(tasks, streams, strict=True):
            with _named(task):
                found.append(_judged(task, stream.result(), method, variant))
    return found


def chosen(runner: Runner, task: Task, variant: str) -> Answered:
    """Which of the choices is the most probable after the prompt, by log-likelihood per byte (as lm-eval's acc_norm).

    The confidence is its share, of all choices.
    """
    started = time.perf_counter()
    with _named(task):
        scores = runner.scores(_prompt(runner, task), task.choices)
    mean = np.array([s.total / len(c.encode()) for s, c in zip(scores, task.choices, strict=True)])
    best = int(mean.argmax())
    totals = np.array([score.total for score in scores])
    share = np.exp(totals - totals.max()) / np.exp(totals - totals.max()).sum()
    item = Item(
        id=task.id,
        kind=task.kind,
        variant=variant,
        right=float(best == task.right),
        confidence=float(share[best]),
        text=task.choices[best],
        seconds=time.perf_counter() - started,
    )
    return Answered(item)


def foretold(runner: Runner, task: Task) -> Answered:
    """How probable a text is, but for its first token."""
    started = time.perf_counter()
    with _named(task):
        score = runner.score("", task.text)
    item = Item(
        id=task.id,
        kind=task.kind,
        right=0.0,
        nats=-score.total,
        bytes=len(runner.tokenizer.decode(score.tokens).encode()),
        samples=len(score.tokens),
        seconds=time.perf_counter() - started,
    )
    return Answered(item)


@contextmanager
def _named(task: Task) -> Iterator[None]:
    """What cannot be computed says for which task."""
    try:
        yield
    except GenerationError as error:
        raise type(error)(f"task '{task.id}': {error}") from error


def _prompt(runner: Runner, task: Task) -> str | tuple[int, ...]:
    return task.prompt if isinstance(task.prompt, str) else runner.encode_chat(task.prompt)


def _scaled(models: Models, task: Task, method: Method, variant: str) -> Answered:
    assert method.scaler
    with _named(task):
        found = scale(models, task.prompt, method.scaler, budget=method.budget, tests=task.tests, **method.options)
    text = found.text if found.best.answer is None else found.answer
    right, f1 = _right(task, text, found.text, method)
    item = Item(
        id=task.id,
        kind=task.kind,
        variant=variant,
        right=right,
        f1=f1,
        passed=int(right),
        score=found.best.score,
        model=found.best.model,
        text=found.text,
        finish_reason=found.best.finish_reason,
        tokens=found.spent.tokens,
        seconds=found.spent.seconds,
    )
    return Answered(item)


def _judged(task: Task, result: Result, method: Method, variant: str) -> Answered:
    each = [_right(task, completion.answer, completion.text, method) for completion in result.completions]
    first, timings = result.completions[0], result.timings
    sure = [
        SURE.score(Candidate(text=completion.text, logprobs=completion.logprobs)) for completion in result.completions
    ]
    item = Item(
        id=task.id,
        kind=task.kind,
        variant=variant,
        right=sum(right for right, _ in each) / len(each),
        f1=each[0][1],
        confidence=float(np.mean(sure)),
        passed=round(sum(right for right, _ in each)),
        samples=len(each),
        text=first.text,
        finish_reason=first.finish_reason,
        tokens=timings.new_tokens,
        seconds=timings.total_s,
        first_s=timings.time_to_first_token_s,
    )
    return Answered(item, timings.between_tokens_s)


def _right(task: Task, answer: str, text: str, method: Method) -> tuple[float, float | None]:
    """Whether a task is solved, and the F1 of words where an answer is asked for."""
    if task.kind == "tests":
        before = str(task.prompt) if task.begins_program else ""
        return float(run_program(program_of(before, text), task.tests).passed), None
    extract = find_extract(method.extract)
    found = extract(answer)
    right = found is not None and found in {extract(each) for each in task.answers}
    return float(right), max(token_f1(found or "", extract(each) or "") for each in task.answers)
