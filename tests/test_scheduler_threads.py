"""tests: a scheduler that several threads use."""

import threading
from pathlib import Path

import numpy as np
import pytest

from edgewise.runtime.runner import Runner
from edgewise.runtime.scheduler import Scheduler
from scheduled import endless, held


@pytest.fixture
def toy_runner(tmp_path: Path, float_runner: Runner) -> Runner:
    return endless(tmp_path, float_runner)


def test_one_thread_steps_while_others_submit_read_and_close(toy_runner: Runner) -> None:
    scheduler, over = Scheduler(toy_runner, slots=3), threading.Event()
    problems: list[BaseException] = []
    expected = {prompt: toy_runner.generate([1, prompt], max_tokens=12, search="greedy").tokens for prompt in range(8)}

    def step() -> None:
        while not over.is_set():
            if not scheduler.step():
                over.wait(0.001)

    def client(number: int) -> None:
        try:
            random = np.random.default_rng(number)
            for _ in range(12):
                prompt = int(random.integers(0, 8))
                stream = scheduler.submit([1, prompt], max_tokens=12, search="greedy")
                if random.random() < 0.4:
                    next(stream)
                    stream.close()
                    found = stream.result()
                    assert found.finish_reason in ("cancelled", "length")
                    assert found.tokens == expected[prompt][: len(found.tokens)]
                else:
                    assert stream.result().tokens == expected[prompt]
        except BaseException as problem:
            problems.append(problem)

    stepper = threading.Thread(target=step)
    clients = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in (stepper, *clients):
        thread.start()
    for thread in clients:
        thread.join(60)
    over.set()
    stepper.join(60)
    assert not problems
    assert not any(thread.is_alive() for thread in (stepper, *clients))
    assert held(scheduler) == 0
    assert not scheduler.step()


def test_readers_in_several_threads_need_no_thread_that_steps(toy_runner: Runner) -> None:
    scheduler = Scheduler(toy_runner, slots=4)
    streams = [scheduler.submit([1, prompt], max_tokens=12, search="greedy") for prompt in range(6)]
    found: dict[int, tuple[int, ...]] = {}

    def read(number: int) -> None:
        found[number] = streams[number].result().tokens

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expected = {n: toy_runner.generate([1, n], max_tokens=12, search="greedy").tokens for n in range(6)}
    assert found == expected
