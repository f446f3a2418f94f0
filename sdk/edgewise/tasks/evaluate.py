"""sdk, tasks: all tasks, put to a bundle: batches of prompts of like length, and the figures of what comes back."""

import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import blake3

from edgewise.bench.energy import Meter
from edgewise.bench.host import Host
from edgewise.bench.speed import Progress
from edgewise.bundle.read import Bundle
from edgewise.calibration.cache import claimed
from edgewise.errors import OptionError
from edgewise.runtime.runner import Runner
from edgewise.scaling.answers import find_extract
from edgewise.tasks.answer import Method, chosen, foretold, generated
from edgewise.tasks.figures import efficiency, figures
from edgewise.tasks.journal import Batch, Journal
from edgewise.tasks.perturb import perturbed
from edgewise.tasks.prices import Prices
from edgewise.tasks.result import FORMAT, Evaluation
from edgewise.tasks.task import Task, read_tasks

BATCH = 8
Variant = tuple[Task, str]


def evaluate_tasks(
    path: str | Path,
    tasks: Path,
    *,
    method: Method | None = None,
    perturbations: Sequence[str] = (),
    batch: int = BATCH,
    prices: Prices | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """How many tasks of a file a bundle solves, and what that takes.

    `perturbations`: the tasks once more with each, to see what it changes. `batch`: answers that are generated
    together; latencies are those of the batch, so 1 is for measuring them. Of a seed in the method's options comes the
    same result. A run that was killed goes on. Raises OptionError for tasks that are none, and what `Runner` raises.
    """
    how = method or Method()
    if batch < 1:
        raise OptionError(f"batch is {batch}; it must be 1 or more")
    if how.samples > 1 and how.scaler:
        raise OptionError("samples are for tests without a scaler, which draws samples itself")
    asked = read_tasks(tasks)
    _refuse_unanswerable(asked, how)
    bundle = Bundle.open(path, verify=False)
    digests = {"bundle": _blake3(bundle.path / "manifest.json"), "tasks": _blake3(tasks)}
    variants = [*((task, "") for task in asked), *_perturbed(asked, perturbations)]
    versions = (FORMAT, version("edgewise"), version("onnxruntime"))
    key = blake3.blake3(repr((versions, digests, how, perturbations, batch, threads)).encode()).hexdigest()
    with claimed(f"tasks-{key[:32]}", keep=True) as folder, Runner.open(path, threads=threads) as runner:
        journal = Journal(folder)
        _answer(runner, variants, how, batch, journal, progress)
    items = [item for each in journal.batches for item in each.items]
    order = {(task.id, variant): i for i, (task, variant) in enumerate(variants)}
    items.sort(key=lambda item: order[item.id, item.variant])
    return Evaluation(
        FORMAT,
        str(path),
        digests["bundle"],
        str(tasks),
        digests["tasks"],
        how.label,
        _plain(how),
        Host.here(),
        batch,
        figures(items),
        efficiency(journal.batches, prices),
        tuple(items),
    )


def _answer(
    runner: Runner, variants: Sequence[Variant], how: Method, size: int, journal: Journal, progress: Progress | None
) -> None:
    """Everything that the journal does not have yet."""
    left = [each for each in variants if (each[0].id, each[1]) not in journal.done]
    done = len(variants) - len(left)
    for batch in _batches(runner, left, size):
        with Meter() as meter:
            started = time.perf_counter()
            kind, variant = batch[0][0].kind, batch[0][1]
            if kind == "text":
                items = [foretold(runner, task) for task, _ in batch]
            elif kind == "choices":
                items = [chosen(runner, task, variant) for task, variant in batch]
            else:
                items = generated(runner, [task for task, _ in batch], how, variant)
            seconds = time.perf_counter() - started
        journal.add(Batch(tuple(items), seconds, meter.energy))
        done += len(batch)
        if progress:
            progress("tasks", done, len(variants))


def _batches(runner: Runner, variants: Sequence[Variant], size: int) -> Iterator[list[Variant]]:
    """Tasks of one kind and one variant together, those of like length beside each other: no row waits for others."""
    groups: dict[tuple[str, str], list[Variant]] = {}
    for task, variant in variants:
        kind = "generated" if task.kind in ("answer", "tests") else task.kind
        groups.setdefault((kind, variant), []).append((task, variant))
    for group in groups.values():
        group.sort(key=lambda each: len(str(each[0].prompt)))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _perturbed(tasks: Sequence[Task], perturbations: Sequence[str]) -> Iterator[Variant]:
    for how in dict.fromkeys(perturbations):
        for task in tasks:
            if task.kind != "text":
                yield perturbed(task, how, seed=0), how


def _refuse_unanswerable(tasks: Sequence[Task], how: Method) -> None:
    """Raises OptionError for a task whose own answers hold none by the method."""
    extract = find_extract(how.extract)
    for task in tasks:
        if task.kind == "answer" and all(extract(answer) is None for answer in task.answers):
            raise OptionError(f"task '{task.id}': '{how.extract}' finds nothing in {task.answers[0]!r}; see --extract")


def _blake3(path: Path) -> str:
    return blake3.blake3(path.read_bytes()).hexdigest()


def _plain(how: Method) -> dict[str, Any]:
    """The method as data that JSON has."""
    scaler = repr(how.scaler) if how.scaler else None
    options = {
        name: value if isinstance(value, str | int | float) else repr(value) for name, value in how.options.items()
    }
    return {"extract": str(how.extract), "samples": how.samples, "scaler": scaler, "budget": how.budget, **options}
