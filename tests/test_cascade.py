"""tests: thresholds of a cascade, against running it, and against each way to defer."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.cli.main import execute
from edgewise.errors import OptionError
from edgewise.scaling.scale import find_scaler
from edgewise.tasks.cascade import Goal, Place, Rule, alone, cheapest, curve, each_alone
from edgewise.tasks.evaluate import evaluate_tasks
from edgewise.tasks.method import Method
from edgewise.tasks.result import Evaluation, Item

EXAMPLE = Path(__file__).parents[1] / "examples/pycoder/tasks.jsonl"
SURE = {"name": "logprob", "quantile": 0.1}
AGREE = {"name": "votes", "extract": "whole"}


@pytest.fixture(scope="module")
def empty(pycoder_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    path = tmp_path_factory.mktemp("tasks") / "one.jsonl"
    path.write_text('{"prompt": "x", "answer": "1"}\n')
    return evaluate_tasks(pycoder_bundle.path, path, method=Method(options={"max_tokens": 1}))


def evaluation(empty: Evaluation, seed: int, right: float, tokens: int) -> Evaluation:
    """A model that is surer where it is right."""
    rng = np.random.default_rng(seed)
    solved = rng.random(200) < right
    sure = np.clip(0.5 + 0.3 * solved + 0.2 * rng.standard_normal(200), 0.01, 0.99)
    items = [
        Item(id=str(i), kind="answer", right=float(s), score=float(c), tokens=tokens, seconds=tokens / 1000)
        for i, (s, c) in enumerate(zip(solved, sure, strict=True))
    ]
    return dataclasses.replace(empty, items=tuple(items))


def run(models: Sequence[Evaluation], thresholds: Sequence[float]) -> tuple[float, float]:
    """Accuracy and tokens of a cascade, step by step."""
    right = tokens = 0.0
    for i in range(200):
        for number, model in enumerate(models):
            item = model.items[i]
            tokens += item.tokens
            if number == len(thresholds) or (item.score or 0) >= thresholds[number]:
                right += item.right
                break
    return right / 200, tokens / 200


@pytest.mark.parametrize("count", [2, 3])
def test_each_place_of_the_curve_is_what_its_cascade_does(empty: Evaluation, count: int) -> None:
    models = [evaluation(empty, i, 0.4 + 0.2 * i, 10 * 4**i) for i in range(count)]
    places = curve(models)
    assert places[0].deferred == 0
    assert places[-1].deferred == 1
    for place in places[:: len(places) // 9]:
        assert (place.accuracy, place.tokens) == pytest.approx(run(models, place.thresholds))
    assert places[-1].accuracy == pytest.approx(np.mean([item.right for item in models[-1].items]))
    assert [each.tokens for each in alone(models)] == [10.0 * 4**i for i in range(count)]


def test_the_curve_by_cost_holds_what_nothing_beats(empty: Evaluation) -> None:
    places = curve([evaluation(empty, i, 0.4 + 0.2 * i, 10 * 4**i) for i in range(2)])
    best = cheapest(places)
    for place in places:
        at_most = [each.accuracy for each in best if each.seconds <= place.seconds]
        assert max(at_most) >= place.accuracy
    assert [each.accuracy for each in best] == sorted({each.accuracy for each in best})


def test_a_wanted_share_or_quality_takes_the_least_that_reaches_it(empty: Evaluation) -> None:
    models = [evaluation(empty, i, 0.4 + 0.3 * i, 10 * 4**i) for i in range(2)]
    places = curve(models)
    shared, good = Goal(share=0.3).reached(places), Goal(quality=0.6).reached(places)
    assert shared
    assert shared.deferred <= 0.3
    assert all(place.deferred <= shared.deferred or place.deferred > 0.3 for place in places)
    assert good
    assert good.accuracy >= 0.6
    assert all(place.seconds >= good.seconds for place in places if place.accuracy >= 0.6)
    assert Goal().reached(places) is None


def test_a_threshold_that_cannot_be_met_says_what_can(empty: Evaluation) -> None:
    places = curve([evaluation(empty, i, 0.4, 10) for i in range(2)])
    best = max(place.accuracy for place in places)
    with pytest.raises(OptionError, match=f"the best is {best:.1%}"):
        Goal(quality=0.99).reached(places)
    with pytest.raises(OptionError, match=r"the share is 1.5; it must be from 0 to 1"):
        Goal(share=1.5)
    with pytest.raises(OptionError, match="give one of them"):
        Goal(share=0.5, quality=0.5)
    with pytest.raises(OptionError, match="two models or more"):
        each_alone(["small.edge"], EXAMPLE, Rule(verifier=SURE))


def test_nothing_is_deferred_where_all_is_wanted_from_the_first_model(empty: Evaluation) -> None:
    place: Place | None = Goal(share=0.0).reached(curve([evaluation(empty, i, 0.5, 10) for i in range(2)]))
    assert place
    assert place.deferred == 0


@pytest.mark.parametrize("rule", [Rule(verifier=SURE), Rule(verifier=AGREE, samples=3)], ids=["sure", "agree"])
def test_the_cascade_does_what_was_calibrated(rule: Rule, pycoder_bundle: Bundle, tmp_path: Path) -> None:
    """Whatever defers an answer: run with the thresholds, as many are deferred, for as many tokens."""
    path, tasks = str(pycoder_bundle.path), tmp_path / "tasks.jsonl"
    prompts = ("import", "x = ", "class ", "def f(self", "return ", "for i in ")
    tasks.write_text("".join(json.dumps({"prompt": each, "answer": "os"}) + "\n" for each in prompts))
    options: dict[str, Any] = {"max_tokens": 1, "seed": 0}
    place = Goal(share=0.8).reached(curve(each_alone([path, path], tasks, rule, options=options)))
    assert place
    assert 0 < place.deferred < 1
    found_by = {"thresholds": place.thresholds, "verifier": rule.verifier, "samples": rule.samples}
    how = Method(scaler=find_scaler({"name": "cascade", **found_by}), options=options)
    scored = evaluate_tasks(path, tasks, method=how, assistants=[path]).items
    assert np.mean([item.model for item in scored]) == pytest.approx(place.deferred)
    assert np.mean([item.tokens for item in scored]) == pytest.approx(place.tokens)


def test_the_command_prints_curves_and_how_to_use_what_it_found(
    pycoder_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(pycoder_bundle.path)
    command = ["cascade", "calibrate", path, path, "--tasks", str(EXAMPLE), "--max-tokens", "4"]
    assert execute([*command, "--share", "0.5"]) == 0
    output = capsys.readouterr()
    assert "by the share that is deferred:" in output.out
    assert "by cost, the cheapest for each accuracy:" in output.out
    said = shlex.split(output.err.partition("use it with: edgewise ")[2])
    assert execute([word if word != "PROMPT" else "import os" for word in said]) == 0
    assert "model 0: score" in (reason := capsys.readouterr().err) or "model 1, the last" in reason
    assert execute([*command, "--quality", "1.0", "--share", "0"]) == 1
    assert "give one of them" in capsys.readouterr().err
    assert execute([*command, "--verifier", "votes"]) == 1
    assert "how many samples agree, and there is 1" in capsys.readouterr().err
