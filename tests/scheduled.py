"""tests: what a scheduler holds, looked at from outside of it."""

from pathlib import Path

from edgewise.runtime.pool import Pool
from edgewise.runtime.runner import Runner
from edgewise.runtime.scheduler import Scheduler
from toy import toy


def endless(folder: Path, runner: Runner) -> Runner:
    """A toy without an end-of-sequence token, so that generations are as long as they may be."""
    return Runner(toy(folder), runner.tokenizer, config={"eos_token_id": []})


def pool_of(scheduler: Scheduler) -> Pool:
    (pool,) = scheduler._pools.values()
    return pool


def held(scheduler: Scheduler) -> int:
    """Rows of all generations."""
    return sum(generation.rows for generation in scheduler._active)
