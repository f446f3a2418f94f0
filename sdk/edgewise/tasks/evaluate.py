"""sdk, tasks: all tasks, put to a bundle: batches of prompts of like length, and the figures of what comes back."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import blake3

from edgewise.bench.energy import Meter
from edgewise.bench.host import Host
from edgewise.bench.speed import Progress
from edgewise.bundle.read import Bundle
from edgewise.calibration.cache import claimed
from edgewise.errors import OptionError
from edgewise.runtime.encoder import Encoder
from edgewise.runtime.opened import open_model
from edgewise.runtime.runner import Runner
from edgewise.tasks.answer import Answered, Models, chosen, foretold, generated
from edgewise.tasks.figures import efficiency, figures
from edgewise.tasks.journal import Batch, Journal
from edgewise.tasks.method import Method
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
    assistants: Sequence[str | Path] = (),
    perturbations: Sequence[str] = (),
    batch: int = BATCH,
    prices: Prices | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """How many tasks of a file a bundle solves, and what that takes.

    `assistants`: bundles 1, 2, ... of a search or a scaler that asks for them. `perturbations`: the tasks once more
    with each, to see what it changes. `batch`: answers that are generated together; latencies are those of the batch,
    so 1 is for measuring them. Of a seed in the method's options comes the same result. A run that was killed goes on.
    Raises OptionError for tasks that are none, and what `Runner` raises.
    """
    how = method or Method()
    if batch < 1:
        raise OptionError(f"batch is {batch}; it must be 1 or more")
    variants = _variants(read_tasks(tasks), how, perturbations)
    digests = [_blake3(Bundle.open(each, verify=False).path / "manifest.json") for each in (path, *assistants)]
    given = (_blake3(tasks), digests, how, perturbations, batch, threads)
    with ExitStack() as stack:
        journal = Journal(stack.enter_context(claimed(f"tasks-{_key(given)}", keep=True)))
        runner = stack.enter_context(Runner.open(path, threads=threads))
        others: list[Runner | Encoder] = []
        for each in assistants:
            others.append(open_model(each, threads=threads))
            stack.callback(others[-1].close)
        _answer((runner, *others), variants, how, batch, journal, progress)
    items = journal.items([(task.id, variant) for task, variant in variants])
    return Evaluation(
        FORMAT,
        str(path),
        digests[0],
        str(tasks),
        _blake3(tasks),
        how.label,
        {**how.data(), **({"assistants": list(map(str, assistants))} if assistants else {})},
        Host.here(),
        batch,
        figures(items),
        efficiency(journal.batches, prices),
        items,
    )


def _answer(
    models: Models,
    variants: Sequence[Variant],
    how: Method,
    size: int,
    journal: Journal,
    progress: Progress | None,
) -> None:
    """Everything that the journal does not have yet."""
    left = [each for each in variants if (each[0].id, each[1]) not in journal.done]
    done = len(variants) - len(left)
    for batch in _batches(left, size):
        with Meter() as meter:
            started = time.perf_counter()
            answered = _together(models, batch, how)
            seconds = time.perf_counter() - started
        between = tuple(round(each, 7) for found in answered for each in found.between_s)
        journal.add(Batch(tuple(each.item for each in answered), between, seconds, meter.energy))
        done += len(batch)
        if progress:
            progress("tasks", done, len(variants))


def _together(models: Models, batch: Sequence[Variant], how: Method) -> list[Answered]:
    """Tasks of one kind and one variant."""
    kind, variant = batch[0][0].kind, batch[0][1]
    if kind == "text":
        return [foretold(models[0], task) for task, _ in batch]
    if kind == "choices":
        return [chosen(models[0], task, variant) for task, _ in batch]
    return generated(models, [task for task, _ in batch], how, variant)


def _batches(variants: Sequence[Variant], size: int) -> Iterator[list[Variant]]:
    """Tasks of one kind and one variant together, those of like length beside each other: no row waits for others."""
    groups: dict[tuple[str, str], list[Variant]] = {}
    for task, variant in variants:
        kind = "generated" if task.kind in ("answer", "tests") else task.kind
        groups.setdefault((kind, variant), []).append((task, variant))
    for group in groups.values():
        group.sort(key=lambda each: len(str(each[0].prompt)))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _variants(tasks: Sequence[Task], how: Method, perturbations: Sequence[str]) -> list[Variant]:
    """The tasks, and those that mean the same in another form; a program that is spelled otherwise is another one."""
    for task in tasks:
        how.refuse_unanswerable(task)
    found = [(task, "") for task in tasks]
    for name in dict.fromkeys(perturbations):
        changed = [task for task in tasks if task.kind != "text" and not task.begins_program]
        found += [(perturbed(task, name, seed=0), name) for task in changed]
    return found


def _blake3(path: Path) -> str:
    return blake3.blake3(path.read_bytes()).hexdigest()


def _key(given: object) -> str:
    """Of all that an answer depends on; the versions too."""
    versions = (FORMAT, version("edgewise"), version("onnxruntime"))
    return blake3.blake3(repr((versions, given)).encode()).hexdigest()[:32]
