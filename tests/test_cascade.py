"""tests: thresholds of a cascade, against running it, and against each way to defer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.cli.main import execute
from edgewise.errors import OptionError
from edgewise.tasks.cascade import Place, curve, with_quality, with_share
from edgewise.tasks.evaluate import evaluate_tasks
from edgewise.tasks.result import Evaluation, Item

EXAMPLE = Path(__file__).parents[1] / "examples/pycoder/tasks.jsonl"


@pytest.fixture(scope="module")
def empty(pycoder_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    path = tmp_path_factory.mktemp("tasks") / "one.jsonl"
    path.write_text('{"prompt": "x", "answer": "1"}\n')
    from edgewise.tasks.answer import Method

    return evaluate_tasks(pycoder_bundle.path, path, method=Method(options={"max_tokens": 1}))


def evaluation(empty: Evaluation, seed: int, right: float, tokens: int) -> Evaluation:
    """A model that is surer where it is right."""
    rng = np.random.default_rng(seed)
    solved = rng.random(200) < right
    sure = np.clip(0.5 + 0.3 * solved + 0.2 * rng.standard_normal(200), 0.01, 0.99)
    items = [
        Item(id=str(i), kind="answer", right=float(s), confidence=float(c), tokens=tokens, seconds=tokens / 1000)
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
            if number == len(thresholds) or (item.confidence or 0) >= thresholds[number]:
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


def test_a_wanted_share_or_quality_takes_the_least_that_reaches_it(empty: Evaluation) -> None:
    models = [evaluation(empty, i, 0.4 + 0.3 * i, 10 * 4**i) for i in range(2)]
    places = curve(models)
    shared = with_share(places, 0.3)
    assert shared.deferred <= 0.3
    assert all(place.deferred <= shared.deferred or place.deferred > 0.3 for place in places)
    good = with_quality(places, 0.6)
    assert good.accuracy >= 0.6
    assert all(place.seconds >= good.seconds for place in places if place.accuracy >= 0.6)


def test_a_threshold_that_cannot_be_met_says_what_can(empty: Evaluation) -> None:
    places = curve([evaluation(empty, i, 0.4, 10) for i in range(2)])
    best = max(place.accuracy for place in places)
    with pytest.raises(OptionError, match=f"the best is {best:.1%}"):
        with_quality(places, 0.99)
    with pytest.raises(OptionError, match="it must be from 0 to 1"):
        with_share(places, 1.5)
    with pytest.raises(OptionError, match="two models or more"):
        curve([evaluation(empty, 0, 0.4, 10)])


def test_nothing_is_deferred_where_all_is_wanted_from_the_first_model(empty: Evaluation) -> None:
    place: Place = with_share(curve([evaluation(empty, i, 0.5, 10) for i in range(2)]), 0.0)
    assert place.deferred == 0


def test_the_command_prints_curves_and_how_to_use_what_it_found(
    pycoder_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(pycoder_bundle.path)
    command = ["cascade", "calibrate", path, path, "--tasks", str(EXAMPLE), "--max-tokens", "4"]
    assert execute([*command, "--share", "0.5"]) == 0
    output = capsys.readouterr()
    assert "deferred" in output.out
    assert f"--assistant {path}" in output.err
    assert execute([*command, "--quality", "1.0", "--share", "0"]) == 2
