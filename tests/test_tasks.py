"""tests: tasks: read, answered, and counted; each figure against its definition."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.bench.energy import Energy
from edgewise.bundle.read import Bundle
from edgewise.cli.main import execute
from edgewise.confined.run import run_program
from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.runtime.runner import Runner
from edgewise.scaling.best_of_n import BestOfN
from edgewise.scaling.cascade import Cascade
from edgewise.scaling.result import Scaled
from edgewise.scaling.scale import scale
from edgewise.tasks.answer import chosen
from edgewise.tasks.compare import compare, mcnemar
from edgewise.tasks.evaluate import evaluate_tasks
from edgewise.tasks.figures import efficiency
from edgewise.tasks.html import page
from edgewise.tasks.journal import Batch
from edgewise.tasks.method import Method
from edgewise.tasks.metrics import calibration_error, distinct, pass_at_k, proportion, repetition, share
from edgewise.tasks.perturb import PERTURBATIONS, perturbed
from edgewise.tasks.plot import Point, front, scatter
from edgewise.tasks.prices import Prices
from edgewise.tasks.result import Evaluation
from edgewise.tasks.task import Task, read_tasks

EXAMPLE = Path(__file__).parents[1] / "examples/pycoder/tasks.jsonl"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is no JSON"),
        ("[1]", "line 2: a task is a table with answer, choices with answer, tests, or text alone"),
        ('{"promt": "x"}', "line 2: no field of a task is named 'promt'; did you mean 'prompt'"),
        ('{"prompt": "x"}', "line 2: nothing says what is right"),
        ('{"answer": "x"}', "line 2: field 'prompt' is None"),
        ('{"prompt": "x", "answer": []}', "line 2: field 'answer' is \\[\\]"),
        ('{"prompt": "x", "answer": true}', "line 2: field 'answer' is True"),
        ('{"prompt": "x", "choices": ["a"], "answer": 0}', "line 2: field 'choices' is"),
        ('{"prompt": "x", "choices": ["a", "b"], "answer": 2}', "line 2: field 'answer' is 2; it must be one of"),
        ('{"prompt": "x", "tests": "", "id": "t"}', "line 2: field 'tests' is ''"),
        ('{"prompt": "x", "text": "y"}', "line 2: field 'prompt' does not go with 'text'"),
        ('{"prompt": "x", "answer": "1", "answer": "2"}', "is there twice"),
        ('{"id": "first", "prompt": "x", "answer": 1}', "two tasks have the id 'first'"),
    ],
)
def test_a_task_that_is_none_is_named_by_line_and_field(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(f'{{"id": "first", "prompt": "2+2=", "answer": 4}}\n{line}\n')
    with pytest.raises(OptionError, match=message):
        read_tasks(path)


def test_any_character_may_be_in_a_task(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps({"prompt": "a\u2028b\x85", "answer": "c"}, ensure_ascii=False), "utf-8")
    assert read_tasks(path)[0].prompt == "a\u2028b\x85"


def test_a_task_that_no_answer_solves_is_named(pycoder_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"id": "five", "prompt": "2+3=", "answer": "five"}\n')
    with pytest.raises(OptionError, match="task 'five': 'last_number' finds nothing in 'five'"):
        evaluate_tasks(pycoder_bundle.path, path, method=Method(extract="last_number"))


def test_a_file_without_tasks_says_what_one_looks_like(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text("\n\n")
    with pytest.raises(OptionError, match=r'such as {"prompt": "2\+2=", "answer": "4"}'):
        read_tasks(tmp_path / "tasks.jsonl")


def test_pass_at_k_is_the_share_of_draws_that_hold_one_that_passes() -> None:
    for samples, passed, k in [(5, 2, 1), (5, 2, 3), (6, 1, 6), (4, 0, 2), (7, 4, 4)]:
        draws = list(itertools.combinations(range(samples), k))
        expected = sum(any(i < passed for i in draw) for draw in draws) / len(draws)
        assert pass_at_k(samples, passed, k) == pytest.approx(expected)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_interval_of_a_share_holds_it_and_stays_within_0_and_1(right: list[bool]) -> None:
    found = proportion([float(each) for each in right])
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_the_interval_of_a_share_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        found = proportion(list((rng.random(80) < 0.7).astype(float)))
        covered += (found.low or 0) <= 0.7 <= (found.high or 0)
    assert 930 <= covered <= 970


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random(200_000)
    right = (rng.random(200_000) < sure).astype(float)
    assert calibration_error(list(sure), list(right)) < 5e-3
    assert calibration_error([0.9] * 10, [1.0] * 5 + [0.0] * 5) == pytest.approx(0.4)


def test_diversity_and_repetition_are_counted_in_words() -> None:
    assert distinct(["a b a b", "a b"], 1) == pytest.approx(2 / 6)
    assert distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)
    assert repetition("") == 0.0


@given(st.text(max_size=200), st.sampled_from(sorted(PERTURBATIONS)), st.integers(0, 9))
def test_a_perturbed_prompt_has_the_same_letters(prompt: str, how: str, seed: int) -> None:
    task = Task(id="x", kind="answer", prompt=prompt, answers=("1",))
    found = perturbed(task, how, seed)
    assert found == perturbed(task, how, seed)
    assert isinstance(found.prompt, str)
    if how == "case":
        assert found.prompt in (prompt.lower(), prompt.upper())
    else:
        assert sorted(found.prompt) == sorted(prompt)


def test_choices_that_are_shuffled_keep_their_right_one() -> None:
    task = Task(id="x", kind="choices", prompt="?", choices=("a", "b", "c", "d"), right=2)
    orders = {perturbed(task, "order", seed) for seed in range(20)}
    assert len(orders) > 5
    assert all(each.choices[each.right] == "c" for each in orders)


def test_a_choice_is_made_by_log_likelihood(float_runner: Runner) -> None:
    task = Task(id="x", kind="choices", prompt="import os\nimport", choices=(" sys", " zebra crossing"), right=0)
    item = chosen(float_runner, task, "").item
    totals = [float_runner.score(str(task.prompt), each).total for each in task.choices]
    assert item.right == 1.0
    assert item.confidence == pytest.approx(1 / (1 + math.exp(totals[1] - totals[0])))


@pytest.fixture(scope="module")
def evaluated(pycoder_bundle: Bundle) -> Evaluation:
    return evaluate_tasks(pycoder_bundle.path, EXAMPLE, method=Method(options={"max_tokens": 6, "search": "greedy"}))


def test_every_kind_of_task_is_answered_and_counted(evaluated: Evaluation, pycoder_bundle: Bundle) -> None:
    items = {item.id: item for item in evaluated.items}
    assert list(items) == [task.id for task in read_tasks(EXAMPLE)]
    assert items["name"].text == "self"
    assert evaluated.accuracy is not None
    assert evaluated.accuracy.count == 5
    assert evaluated.accuracy.value == pytest.approx(sum(item.right for item in items.values()) / 5)
    with Runner.open(pycoder_bundle.path) as runner:
        score = runner.score("", read_tasks(EXAMPLE)[-1].text)
    assert evaluated.figures["perplexity"].value == pytest.approx(score.perplexity, rel=1e-3)
    assert evaluated.efficiency.tokens == sum(item.tokens for item in items.values())


def test_a_result_is_read_back_as_it_was(evaluated: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(evaluated.data()))
    assert Evaluation.read(path) == evaluated
    path.write_text("{}")
    with pytest.raises(OptionError, match="is not what this edgewise's `eval --tasks --json` prints"):
        Evaluation.read(path)


def test_an_evaluation_goes_on_where_it_was_stopped(
    pycoder_bundle: Bundle, evaluated: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    how = Method(options={"max_tokens": 6, "search": "greedy"})
    answered: list[int] = []

    def stop(stage: str, done: int, total: int) -> None:
        answered.append(done)
        if len(answered) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_tasks(pycoder_bundle.path, EXAMPLE, method=how, progress=stop)
    (journal,) = tmp_path.rglob("batches.jsonl")
    journal.write_bytes(journal.read_bytes()[:-7])  # as a kill in the midst of a line leaves it
    answered.append(-1)
    found = evaluate_tasks(pycoder_bundle.path, EXAMPLE, method=how, progress=stop)
    assert answered[3] > answered[0]
    assert [(item.id, item.text) for item in found.items] == [(item.id, item.text) for item in evaluated.items]
    assert not list(tmp_path.rglob("batches.jsonl"))


def test_an_error_leaves_what_is_answered(
    pycoder_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tasks.jsonl"
    long = "x = 1\n" * 2000
    path.write_text(f"{json.dumps({'prompt': 'a', 'answer': 'b'})}\n{json.dumps({'prompt': long, 'answer': 'b'})}\n")
    with pytest.raises(ContextOverflow):
        evaluate_tasks(pycoder_bundle.path, path, method=Method(options={"max_tokens": 2}), batch=1)
    (journal,) = (tmp_path / "cache").rglob("batches.jsonl")
    assert len(journal.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"text": "x"}, "task 'odd': "),
        ({"text": "x = 1\n" * 2000}, "task 'odd': "),
        ({"prompt": "x = 1\n" * 2000, "answer": "b"}, "task 'odd': "),
        ({"prompt": "a", "choices": ["b", "c" * 9000], "answer": 0}, "task 'odd': "),
        ({"prompt": [{"role": "user", "content": "x"}], "answer": "b"}, "task 'odd': .*chat template"),
    ],
)
def test_a_task_that_cannot_be_put_to_the_model_is_named(
    task: dict[str, Any], message: str, pycoder_bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(f"{json.dumps({'prompt': 'a', 'answer': 'b'})}\n{json.dumps({'id': 'odd', **task})}\n")
    with pytest.raises(GenerationError, match=message) as caught:
        evaluate_tasks(pycoder_bundle.path, path, method=Method(options={"max_tokens": 1}))
    assert "\n" not in str(caught.value)


def test_samples_are_verified_by_the_tests_of_their_task(pycoder_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps({"prompt": "x = ", "tests": "assert x == 1"}))
    checked = BestOfN(verifier={"name": "unit-tests"})
    options = {"max_tokens": 1, "seed": 0}
    found = evaluate_tasks(pycoder_bundle.path, path, method=Method(scaler=checked, budget="3", options=options))
    drawn = scale_by(pycoder_bundle, "x = ", checked, tests="assert x == 1", budget=3, **options)
    passes = [run_program(f"x = {each.text}", "assert x == 1").passed for each in drawn.candidates]
    assert [each.score for each in drawn.candidates] == [float(each) for each in passes]
    assert found.items[0].right == max(passes)
    with pytest.raises(OptionError, match="'unit-tests' has no tests"):
        scale_by(pycoder_bundle, "x = ", checked, budget=1, **options)


def scale_by(bundle: Bundle, prompt: str, scaler: BestOfN, **options: Any) -> Scaled:
    with Runner.open(bundle.path) as runner:
        return scale(runner, prompt, scaler, **options)


def test_assistants_answer_too(pycoder_bundle: Bundle) -> None:
    path = str(pycoder_bundle.path)
    how = Method(scaler=Cascade(thresholds=(1.1,)), options={"max_tokens": 2})
    found = evaluate_tasks(path, EXAMPLE, method=how, assistants=[path])
    answered = [item for item in found.items if item.kind in ("answer", "tests")]
    assert {item.model for item in answered} == {1}
    assert found.figures["answered by model 1"].value == pytest.approx(len(answered) / 5)
    assert found.options["assistants"] == [path]


def test_each_gap_between_tokens_counts(evaluated: Evaluation, pycoder_bundle: Bundle) -> None:
    """Not only their mean over an answer: a stall in its midst is seen."""
    between = evaluated.efficiency.between_tokens_s
    assert 0 < between["p50"] <= between["p95"] <= between["p99"]
    items = (dataclasses.replace(evaluated.items[0], tokens=100),)
    batch = Batch(items, (*[0.01] * 98, 2.0), 3.0, Energy(None, None, "none"))
    stalled = efficiency([batch], None).between_tokens_s
    assert stalled["p50"] == 0.01
    assert stalled["p99"] > 0.01


def test_an_interval_of_shares_of_samples_is_that_of_a_bootstrap() -> None:
    assert share([1.0, 0.0, 1.0]) == proportion([1.0, 0.0, 1.0])
    assert share([0.5] * 9).low == share([0.5] * 9).high == 0.5


def test_perturbed_tasks_are_counted_apart(pycoder_bundle: Bundle) -> None:
    how = Method(options={"max_tokens": 4, "search": "greedy"})
    found = evaluate_tasks(pycoder_bundle.path, EXAMPLE, method=how, perturbations=("case",))
    answered = [item for item in found.items if item.kind in ("answer", "choices") and not item.variant]
    assert found.figures["accuracy"].count == 5
    assert found.figures["accuracy, case"].count == len(answered) == 4  # a program in other letters is another one
    drop = np.mean([item.right for item in answered]) - found.figures["accuracy, case"].value
    assert found.figures["drop by case"].value == pytest.approx(drop)


def test_two_evaluations_are_compared_in_pairs(pycoder_bundle: Bundle, evaluated: Evaluation, tmp_path: Path) -> None:
    scaled = Method(options={"max_tokens": 6, "seed": 1}, scaler=BestOfN(), budget="3")
    other = evaluate_tasks(pycoder_bundle.path, EXAMPLE, method=scaled)
    found = compare(other, evaluated)
    assert found.tasks == 5
    pairs = zip(other.items, evaluated.items, strict=True)
    assert found.only_first == sum(a.right > b.right for a, b in pairs)
    path = tmp_path / "other.jsonl"
    path.write_text('{"prompt": "a", "answer": "b"}\n')
    third = evaluate_tasks(pycoder_bundle.path, path, method=Method(options={"max_tokens": 1}))
    with pytest.raises(OptionError, match="are not the same tasks"):
        compare(third, evaluated)


def test_mcnemar_is_the_tail_of_a_fair_coin() -> None:
    for a, b in [(0, 0), (3, 3), (8, 1), (0, 6)]:
        flips = [sum(each) for each in itertools.product((0, 1), repeat=a + b)]
        tail = sum(heads <= min(a, b) for heads in flips) / len(flips)
        assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail))


def test_a_device_is_paid_for_over_its_life() -> None:
    prices = Prices(device=87.66, years=1, kilowatt_hour=0.36, watts=10)
    assert prices.cost(3600, Energy(None, None, "none")) == pytest.approx(0.01 + 0.0036)
    assert prices.cost(3600, Energy(3.6e6, "rapl")) == pytest.approx(0.01 + 0.36)
    with pytest.raises(OptionError, match="must be more than 0"):
        Prices(device=1, years=0, kilowatt_hour=1)


@given(st.lists(st.tuples(st.floats(0.1, 1e6), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_front_is_what_nothing_beats(values: list[tuple[float, float]]) -> None:
    points = [Point(x, y, y, y, str(i)) for i, (x, y) in enumerate(values)]
    best = front(points)
    for point in points:
        beaten = any(o.x <= point.x and o.y >= point.y and (o.x, o.y) != (point.x, point.y) for o in points)
        assert (point in best) == (not beaten) or any((o.x, o.y) == (point.x, point.y) for o in best)
    svg = scatter(points, axis="tokens per task")
    assert svg.count("<circle") == len(points)


def test_what_a_model_says_is_text_in_the_page(evaluated: Evaluation, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    items = tuple(dataclasses.replace(item, text=hostile) for item in evaluated.items)
    text = page([dataclasses.replace(evaluated, items=items, method=hostile)])
    assert hostile not in text
    assert text.count("<svg") == 2
    assert "http" not in text.replace("http://www.w3.org", "")


def test_the_commands_evaluate_and_report(
    pycoder_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "result.json"
    command = ["eval", str(pycoder_bundle.path), "--tasks", str(EXAMPLE), "--max-tokens", "4"]
    assert execute([*command, "-o", str(kept)]) == 0
    assert "| accuracy |" in capsys.readouterr().out
    assert execute(["report", str(kept), str(kept)]) == 0
    assert "+0.0 points" in capsys.readouterr().out
    assert execute(["report", str(kept), "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert execute([*command, "--against", "x"]) == 2
    assert "Option '--against' needs '--text'" in capsys.readouterr().err
    assert execute(["eval", str(pycoder_bundle.path)]) == 2
