"""tests: the example that works out sums: its problems, its models, and the script that trains them."""

import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.runtime.runner import Runner
from edgewise.tasks.evaluate import evaluate_tasks
from edgewise.tasks.method import Method
from edgewise.tasks.task import read_tasks
from problems import held_out, problems, solution, value

EXAMPLE = Path(__file__).parents[1] / "examples/arithmetic"


def test_every_line_of_a_solution_is_right_and_the_last_one_is_the_answer() -> None:
    rng = random.Random(0)
    for text in islice(problems(3, tests=False), 200):
        lines = [line.split("=") for line in solution(text, rng).split("\n")]
        assert all(value(left) == int(right) for left, right in lines)
        assert int(lines[-1][1]) == value(text) == eval(text)
        assert len({solution(text, rng) for _ in range(20)}) > 1


def test_the_tasks_are_held_out() -> None:
    tasks = read_tasks(EXAMPLE / "tasks.jsonl")
    assert len(tasks) == 500
    for task in tasks:
        assert held_out(str(task.prompt).strip())
        assert task.answers == (str(value(str(task.prompt).strip())),)


@pytest.mark.parametrize(("size", "least", "most"), [("small", 0.3, 0.65), ("large", 0.6, 0.9)])
def test_a_model_leaves_something_to_win(size: str, least: float, most: float, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join((EXAMPLE / "tasks.jsonl").read_text().splitlines(keepends=True)[:64]))
    path = tmp_path / f"{size}.edge"
    build(EXAMPLE / size, output=path, recipe=Recipe(), load_check=False)
    how = Method(extract="last_number", options={"search": "greedy", "max_tokens": 120})
    accuracy = evaluate_tasks(path, tasks, method=how, batch=16).accuracy
    assert accuracy
    assert least <= accuracy.value <= most


@pytest.mark.slow
def test_the_script_trains_a_model_that_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "train.py"), "small", "--goal", "0", "-o", str(tmp_path / "small")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    build(tmp_path / "small", output=tmp_path / "small.edge", recipe=Recipe(), load_check=False)
    with Runner.open(tmp_path / "small.edge") as runner:
        assert runner.generate("2*3+10\n", max_tokens=4).tokens
