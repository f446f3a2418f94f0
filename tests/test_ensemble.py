"""tests: an ensemble: the mean of members by its equation, on tables and with bundles."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.errors import ContextOverflow, OptionError
from edgewise.runtime.runner import Runner
from edgewise.search.beam import Beam
from edgewise.search.ensemble import Ensemble
from edgewise.search.greedy import Greedy
from edgewise.search.protocol import FloatArray, Search
from edgewise.search.sample import Sample
from tables import Texts, log_softmax, search, table

PROMPT, OTHER = (1, 2), (7, 5, 3)
VOCABULARY = 12


def averaged(members: list[FloatArray], weights: list[float], mean: str) -> NDArray[np.float64]:
    logs = np.array([log_softmax(each) for each in members])
    shares = np.array(weights)[:, None] / sum(weights)
    found: NDArray[np.float64] = (shares * logs).sum(0) if mean == "logprob" else np.log((shares * np.exp(logs)).sum(0))
    return found


@pytest.mark.parametrize("mean", ["probability", "logprob"])
@pytest.mark.parametrize("weights", [(), (1.0, 0.5, 2.0)])
def test_tokens_are_those_of_the_mean_of_prompts_and_models(mean: str, weights: tuple[float, ...]) -> None:
    for seed in range(3):
        own, assistant = table(seed, VOCABULARY), table(seed + 50, VOCABULARY)
        text: tuple[int, ...] = ()
        for _ in range(10):
            members = [own(PROMPT + text), own(OTHER + text), assistant(PROMPT + text)]
            text += (int(averaged(members, list(weights or (1, 1, 1)), mean).argmax()),)
        how = Ensemble(search=Greedy(), prompts=(OTHER,), weights=weights, mean=mean)  # type: ignore[arg-type]
        found = search(how, Texts(own, assistant), prompt=PROMPT, limit=10, assistants=(99,))
        assert found[0].tokens == text


@pytest.mark.parametrize("alone", [Greedy(), Sample(top_k=5), Beam(num_beams=3)], ids=lambda each: each.name)
def test_an_ensemble_of_one_model_with_itself_is_the_model(alone: Search) -> None:
    model = table(3, VOCABULARY)
    rng = [np.random.default_rng(1) for _ in range(2)]
    plain = search(alone, Texts(model), prompt=PROMPT, limit=8, eos=(3,), rng=rng[0])
    how = Ensemble(search=alone, prompts=(PROMPT,), mean="logprob")
    both = search(how, Texts(model, model), prompt=PROMPT, limit=8, eos=(3,), assistants=(99,), rng=rng[1])
    assert [each.tokens for each in both] == [each.tokens for each in plain]


def test_a_beam_over_an_ensemble_finds_the_best_sequence_of_all() -> None:
    own, other = table(4, 5), table(5, 5)

    def score(tokens: tuple[int, ...]) -> float:
        members = [[own(PROMPT + tokens[:i]), other(PROMPT + tokens[:i])] for i in range(len(tokens))]
        return sum(float(averaged(each, [1, 1], "probability")[t]) for each, t in zip(members, tokens, strict=True))

    best = max(product(range(5), repeat=4), key=score)
    how = Ensemble(search=Beam(num_beams=125, length_penalty=0.0))
    found = search(how, Texts(own, other), prompt=PROMPT, limit=4, assistants=(99,))
    assert found[0].tokens == best
    assert found[0].score == pytest.approx(score(best), abs=1e-4)


def test_prompts_of_a_bundle_share_the_answer(float_runner: Runner) -> None:
    how = {"name": "ensemble", "prompts": ["def load(path):\n"], "weights": [0.0, 1.0]}
    led = float_runner.generate("def read(path):\n", search=how, max_tokens=12)
    assert led.tokens == float_runner.generate("def load(path):\n", search="greedy", max_tokens=12).tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has one member"),
        ({"prompts": ((1,),), "weights": (1.0,)}, "weights are given: 1; the ensemble has 2 members"),
        ({"prompts": ((),)}, "a prompt of the ensemble is empty"),
        ({"prompts": ((1,),), "weights": (0.0, 0.0)}, "not all of them 0"),
        ({"prompts": ((1,),), "weights": (1.0, float("nan"))}, "must be 0 or more"),
    ],
)
def test_what_is_no_ensemble_is_refused(options: dict[str, tuple[float, ...]], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        search(Ensemble(search=Greedy(), **options), Texts(table(0, 9)), limit=2)  # type: ignore[arg-type]


def test_a_member_that_is_too_short_for_the_answer_is_named() -> None:
    with pytest.raises(ContextOverflow, match="do not fit in the context of assistant 2, 9"):
        search(Ensemble(search=Greedy()), Texts(table(0, 9), table(1, 9)), limit=20, assistants=(99, 9))
