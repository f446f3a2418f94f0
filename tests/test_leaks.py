"""tests: many generations leave nothing behind: no memory, no open file, no object."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewise.bundle.read import Bundle
from edgewise.errors import GenerationError
from edgewise.runtime.runner import Runner
from edgewise.runtime.scheduler import Scheduler
from scheduled import endless, held, pool_of

PROMPT = "def read_json("


@pytest.fixture(scope="module")
def runner(pycoder_bundle: Bundle) -> Iterator[Runner]:
    with Runner.open(pycoder_bundle.path, threads=1) as opened:
        yield opened


def test_many_generations_of_a_scheduler_leave_nothing_behind(runner: Runner, tmp_path: Path) -> None:
    scheduler = Scheduler(endless(tmp_path, runner), slots=4)

    def some(count: int) -> None:
        streams = []
        for n in range(count):
            options: Any = {"max_tokens": 1 + n % 7, "search": "sample", "seed": n if n % 2 else None}
            streams.append(scheduler.submit([1, n % 9], **options))
        for number, stream in enumerate(streams):
            if number % 3:
                stream.result()
            else:
                stream.close()

    some(20)
    gc.collect()
    before, memory = len(gc.get_objects()), pool_of(scheduler).bytes
    some(200)
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert pool_of(scheduler).bytes == memory
    assert held(scheduler) == 0


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_many_generations_leave_nothing_behind(runner: Runner, count: int) -> None:
    """Some of them cancelled, some failed: memory and open files stay where they were after the first."""

    grammar = {"name": "grammar", "json_schema": {}}
    kinds: list[dict[str, Any]] = [
        {"search": "sample"},
        {"search": "beam"},
        {"search": "speculative"},
        {"search": "sample", "processors": [grammar, "dry"], "n": 2},
    ]

    def run(number: int) -> None:
        stream = runner.stream(PROMPT, max_tokens=4, seed=number, **kinds[number // 3 % len(kinds)])
        if number % 3 == 0:
            next(stream)
            stream.close()
        elif number % 3 == 1:
            stream.result()
        else:
            with pytest.raises(GenerationError):
                runner.generate([9999], max_tokens=4)

    for number in range(60):
        run(number)
    gc.collect()
    before, files = resident(), len(os.listdir("/proc/self/fd"))
    for number in range(count):
        run(number)
    gc.collect()
    assert resident() - before < 8 << 20
    assert len(os.listdir("/proc/self/fd")) == files


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
