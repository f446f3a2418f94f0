"""tests: another bundle says how good an answer is: a classifier, a head with one score, the next token."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.cli.main import execute
from edgewise.errors import OptionError
from edgewise.runtime.encoder import Encoder
from edgewise.runtime.runner import Runner
from edgewise.scaling.best_of_n import BestOfN
from edgewise.scaling.cascade import Cascade
from edgewise.scaling.labelled import labelled
from edgewise.scaling.reward import Reward
from edgewise.scaling.scale import scale
from encoding import ENCODERS, packed

PROMPT = "# a file\n"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(ENCODERS / "distilbert", tmp_path_factory.mktemp("head") / "head.edge").path


@pytest.fixture
def encoder(head: Path) -> Iterator[Encoder]:
    with Encoder.open(head) as opened:
        yield opened


def test_a_classifier_judges_by_the_probability_of_a_label(float_runner: Runner, encoder: Encoder) -> None:
    label = encoder.facts.labels[0]
    how = BestOfN(verifier=Reward(label=label, text="{prompt}{text}"))
    found = scale([float_runner, encoder], PROMPT, how, budget=4, seed=1, max_tokens=4)
    expected = [row[0] for row in encoder.probabilities([PROMPT + each.text for each in found.candidates])]
    assert [each.score for each in found.candidates] == pytest.approx(expected, abs=1e-6)
    assert found.best.score == max(each.score for each in found.candidates)
    assert found.spent.samples == 4


def test_a_head_with_one_score_needs_no_label(encoder: Encoder) -> None:
    encoder.facts = dataclasses.replace(encoder.facts, labels=("reward",), scores="none")
    encoder._run = lambda pieces: iter([([0], np.array([[-2.5]], np.float32), np.ones((1, 3), np.int64))])  # type: ignore[method-assign]
    (top,) = labelled(encoder, "x", 1).logprobs
    assert top.token == 0
    assert top.logprob == pytest.approx(math.log(1 / (1 + math.exp(2.5))))


def test_a_language_model_judges_by_its_next_token(float_runner: Runner) -> None:
    how = BestOfN(verifier=Reward(label="import", text="{text}\n"))
    found = scale([float_runner, float_runner], PROMPT, how, budget=2, seed=1, max_tokens=4)
    for each in found.candidates:
        (chosen,) = float_runner.generate(f"{each.text}\n", max_tokens=1, search="greedy", logprobs=100).logprobs
        named = [math.exp(p) for token, p in chosen.top if float_runner.tokenizer.decode([token]).strip() == "import"]
        assert each.score == pytest.approx(sum(named))


def test_a_cascade_may_have_a_judge_of_its_own(float_runner: Runner, encoder: Encoder) -> None:
    verifier = Reward(model=2, label=encoder.facts.labels[0])
    for threshold, model in ((0.0, 0), (1.1, 1)):
        how = Cascade(thresholds=(threshold,), verifier=verifier)
        found = scale([float_runner, float_runner, encoder], PROMPT, how, budget=2, max_tokens=2)
        assert found.best.model == model


def test_what_cannot_judge_or_answer_is_one_line(float_runner: Runner, encoder: Encoder) -> None:
    both: list[Runner | Encoder] = [float_runner, encoder]
    with pytest.raises(OptionError, match=r"needs a label; model 1 gives "):
        scale(both, PROMPT, BestOfN(verifier=Reward()), budget=1, max_tokens=2)
    with pytest.raises(OptionError, match="model 1 is a classifier, and answers nothing"):
        scale(both, PROMPT, "self-consistency", budget=16, max_tokens=2)
    with pytest.raises(OptionError, match="asks model 1, and there are 1"):
        scale(float_runner, PROMPT, BestOfN(verifier=Reward(label="x")), budget=1, max_tokens=2)
    with pytest.raises(OptionError, match="assistant 1 holds a model that generates no text"):
        float_runner.generate(PROMPT, search="ensemble", assistants=[encoder])  # type: ignore[list-item]


def test_the_command_takes_a_classifier_as_an_assistant(
    pycoder_bundle: Bundle, head: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    how = f'best-of-n:verifier={{name="reward",label="{encoder.facts.labels[0]}"}}'
    command = ["run", str(pycoder_bundle.path), PROMPT, "--scale", how, "--assistant", str(head), "--budget", "2"]
    assert execute([*command, "--max-tokens", "2", "--seed", "1"]) == 0
    assert "the best of 2" in capsys.readouterr().err
