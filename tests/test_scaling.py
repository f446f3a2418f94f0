"""tests: scalers against tables of answers, and one driver that keeps the budget of them all."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answering import Answers, scaled
from edgewise.bench.energy import Meter
from edgewise.bundle.read import Bundle
from edgewise.cli.main import execute
from edgewise.errors import GenerationError, OptionError
from edgewise.runtime.runner import Runner
from edgewise.scaling.answers import EXTRACTS, find_extract
from edgewise.scaling.best_of_n import BestOfN
from edgewise.scaling.budget import Budget
from edgewise.scaling.likelihood import Likelihood
from edgewise.scaling.protocol import Candidate
from edgewise.scaling.scale import scale
from edgewise.scaling.votes import BATCH, SelfConsistency
from edgewise.search.protocol import LogProb

PROMPT = "def read_json("


@given(st.lists(st.sampled_from(["so 1", "so 2", "2.0!", "it is 3", "none"]), min_size=1, max_size=16))
def test_the_answer_with_most_votes_wins(texts: list[str]) -> None:
    choice = scaled(SelfConsistency(), Answers(texts, samples=len(texts)))
    votes = Counter(answer for text in texts if (answer := find_extract("last_number")(text)))
    assert len(choice.candidates) == len(texts)
    if votes:
        assert votes[str(choice.best.answer)] == max(votes.values())
        assert choice.best.score == votes[str(choice.best.answer)] / votes.total()
    else:
        assert choice.best.answer is None


def sure(text: str, *probabilities: float) -> Candidate:
    return Candidate(text=text, logprobs=tuple(LogProb(0, math.log(p)) for p in probabilities))


def test_best_of_n_takes_the_most_probable() -> None:
    candidates = [sure("a", 0.5, 0.5), sure("b", 0.9, 0.4), sure("c", 0.2)]
    assert scaled(BestOfN(), Answers(candidates, samples=3)).best.text == "b"
    least = BestOfN(verifier=Likelihood(quantile=0.0))
    assert scaled(least, Answers(candidates, samples=3)).best.text == "a"


def test_weighted_best_of_n_sums_scores_of_equal_answers() -> None:
    candidates = [sure("it is 7", 0.9), sure("8.0", 0.5), sure("8", 0.6)]
    choice = scaled(BestOfN(extract="last_number"), Answers(candidates, samples=3))
    assert (choice.best.text, choice.best.answer) == ("8", "8")
    assert scaled(BestOfN(), Answers(candidates, samples=3)).best.text == "it is 7"


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("last_number", "3 + 4 = 7.", "7"),
        ("last_number", "1,050.0 kg", "1050"),
        ("last_number", "from -0.50", "-0.5"),
        ("last_number", f"{10**29 + 9}.0", str(10**29 + 9)),
        ("boxed", r"\boxed{1e9999999}", "1e9999999"),
        ("boxed", r"\boxed{-00.0}", "0"),
        ("last_number", "x1 and y2", None),
        ("boxed", r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"so \boxed{12", None),
        ("last_line", "a\n b \n\n", "b"),
        ("whole", " Yes,\n it IS ", "yes, it is"),
        ("regex:answer: (\\w+)", "answer: no, answer: yes", "yes"),
    ],
)
def test_answers_are_found_in_texts(name: str, text: str, answer: str | None) -> None:
    assert find_extract(name)(text) == answer


@given(st.text(), st.sampled_from(sorted(EXTRACTS)))
def test_any_text_has_an_answer_or_none(text: str, name: str) -> None:
    found = EXTRACTS[name](text)
    assert found is None or found == found.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not of the form"),
        ("1.5", "is not of the form"),
        ("10m", "is not of the form"),
        ("0", "it must be more than 0"),
        ("4,5", "bounds the samples twice"),
    ],
)
def test_budgets_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Budget.parse(text)


def test_the_first_one_stands_where_nothing_is_scored_above_0() -> None:
    choice = scaled(BestOfN(extract="last_number"), Answers(["1", "2"], samples=2))
    assert (choice.best.text, choice.why) == ("1", "none of 2 was scored above 0: the first of them")


def test_a_budget_is_read_from_its_units() -> None:
    assert Budget.parse("16, 2.5s,2000tokens,50J") == Budget(samples=16, seconds=2.5, tokens=2000, joules=50)


def test_samples_of_a_seed_are_the_same_and_differ_among_themselves(float_runner: Runner) -> None:
    one, two = (scale(float_runner, PROMPT, "best-of-n", budget=12, seed=3, max_tokens=8) for _ in range(2))
    assert [each.tokens for each in one.candidates] == [each.tokens for each in two.candidates]
    assert len({each.tokens for each in one.candidates}) > 4
    assert (one.best, one.why) == (two.best, two.why)
    assert one.spent.samples == 12
    assert not one.early


def test_all_samples_share_the_prompt(float_runner: Runner) -> None:
    prompt = "import os\n" * 100
    spent = scale(float_runner, prompt, budget=24, seed=1, max_tokens=2).spent
    assert spent.prompt_tokens < 2 * len(float_runner.tokenizer.encode(prompt))


@pytest.mark.parametrize("bound", [1, 5, 40])
def test_a_budget_of_tokens_is_exceeded_by_one_step_at_most(float_runner: Runner, bound: int) -> None:
    result = scale(float_runner, PROMPT, budget=Budget(tokens=bound), seed=3, max_tokens=8)
    assert bound <= result.spent.tokens < bound + BATCH
    assert sum(len(each.tokens) for each in result.candidates) <= result.spent.tokens


def test_time_ends_it_and_says_so(float_runner: Runner) -> None:
    result = scale(float_runner, PROMPT, budget=Budget(seconds=1e-6), seed=3, max_tokens=8)
    assert {each.finish_reason for each in result.candidates} == {"budget"}
    assert all(len(each.tokens) == 1 for each in result.candidates)


def test_joules_bound_nothing_where_nothing_counts_them(float_runner: Runner) -> None:
    if Meter().__enter__().joules() is not None:
        pytest.skip("this machine counts joules")
    with pytest.raises(OptionError, match=r"the budget is in joules, and .*; give samples, tokens or seconds"):
        scale(float_runner, PROMPT, budget="5J", max_tokens=2)


def test_one_at_a_time_they_differ_too(float_runner: Runner) -> None:
    how = {"name": "adaptive-consistency", "batch": 1, "extract": "whole", "confidence": 0.99}
    found = scale(float_runner, PROMPT, how, budget=6, seed=2, max_tokens=8, search={"name": "sample"})
    plain = scale(float_runner, PROMPT, how, budget=6, seed=2, max_tokens=12)
    assert len({each.tokens for each in found.candidates}) > 1
    assert len({each.tokens for each in plain.candidates}) > 1


def test_models_that_nobody_would_ask_are_refused(float_runner: Runner) -> None:
    with pytest.raises(OptionError, match="scaler 'deepconf' asks 1 models, and 2 are given"):
        scale([float_runner, float_runner], PROMPT, "deepconf", budget=2)
    both = scale([float_runner, float_runner], PROMPT, budget=16, seed=1, max_tokens=2)
    assert [each.model for each in both.candidates] == [0] * 8 + [1] * 8


def test_a_conversation_is_encoded_by_the_template_of_the_bundle(float_runner: Runner) -> None:
    with pytest.raises(GenerationError, match="chat template"):
        scale(float_runner, [{"role": "user", "content": "Hi"}], budget=1)


def test_the_command_prints_the_answer_and_what_it_took(
    pycoder_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", str(pycoder_bundle.path), PROMPT, "--scale", "best-of-n", "--budget", "3", "--seed", "1"]
    assert execute([*command, "--max-tokens", "4"]) == 0
    assert "3 samples" in capsys.readouterr().err
    assert execute([*command, "--n", "2"]) == 2
    assert "'--n' does not go with '--scale'" in capsys.readouterr().err
