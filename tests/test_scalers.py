"""tests: each scaler against brute force, on answers from tables and from toy distributions."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answering import Answers, scaled
from edgewise.errors import OptionError
from edgewise.runtime.runner import Runner
from edgewise.scaling.adaptive import AdaptiveConsistency, leading
from edgewise.scaling.answers import find_extract
from edgewise.scaling.best_of_n import BestOfN
from edgewise.scaling.cascade import Cascade
from edgewise.scaling.confidence import DeepConf, Unsure, lowest_group
from edgewise.scaling.cot import answer_span, margin
from edgewise.scaling.judge import Judge, Votes
from edgewise.scaling.likelihood import Likelihood
from edgewise.scaling.minimum_risk import MinimumRisk
from edgewise.scaling.protocol import Candidate, Context, Draw
from edgewise.scaling.refine import Refine
from edgewise.scaling.scale import scale
from edgewise.scaling.tree import Steps, TreeSearch
from edgewise.scaling.verifier import Judging, Verdict, Verifier
from edgewise.search.protocol import LogProb
from edgewise.search.utilities import UTILITIES


def sure(text: str, *probabilities: float) -> Candidate:
    logprobs = tuple(LogProb(0, math.log(p), ((0, math.log(p)), (1, math.log(1 - p)))) for p in probabilities)
    return Candidate(text=text, tokens=tuple(range(len(probabilities))), logprobs=logprobs)


@pytest.mark.parametrize("counts", [[1], [3, 1], [5, 4, 1], [2, 2], [12, 3, 3, 1]])
def test_the_posterior_of_a_vote_is_that_of_a_dirichlet(counts: list[int]) -> None:
    draws = np.random.default_rng(0).dirichlet([*(count + 1 for count in counts), 1], 400_000)
    assert leading(counts) == pytest.approx((draws.argmax(1) == 0).mean(), abs=4e-3)


def test_adaptive_consistency_stops_when_the_vote_is_decided() -> None:
    answers = Answers(["7"] * 100, samples=100)
    choice = scaled(AdaptiveConsistency(batch=1), answers)
    votes = len(choice.candidates)
    assert leading([votes]) >= 0.95 > leading([votes - 1])
    assert "lead with probability" in choice.why
    split = Answers(["7", "8"], samples=40)
    assert len(scaled(AdaptiveConsistency(), split).candidates) == 40


@pytest.mark.parametrize("counts", [[0.4, 0.2], [2.5, 1.5, 0.5]])
def test_votes_that_are_weighed_have_a_posterior_too(counts: list[float]) -> None:
    draws = np.random.default_rng(0).dirichlet([*(count + 1 for count in counts), 1], 400_000)
    assert leading(counts) == pytest.approx((draws.argmax(1) == 0).mean(), abs=4e-3)


@given(st.lists(st.tuples(st.sampled_from("123"), st.floats(0.05, 0.95)), min_size=1, max_size=8))
def test_weighed_votes_elect_the_answer_with_most_weight(drawn: list[tuple[str, float]]) -> None:
    candidates = [sure(answer, probability, probability) for answer, probability in drawn]
    weights: dict[str, float] = {}
    for answer, probability in drawn:
        weights[answer] = weights.get(answer, 0.0) + probability**2
    scaler = AdaptiveConsistency(weights=Likelihood(product=True), batch=len(drawn), confidence=0.9999)
    choice = scaled(scaler, Answers(candidates, samples=len(drawn)))
    assert weights[str(choice.best.answer)] == pytest.approx(max(weights.values()))
    assert choice.best.score == pytest.approx(max(weights.values()) / sum(weights.values()))


def test_a_sure_sample_decides_a_weighed_vote_earlier() -> None:
    doubtful = [sure("1", 0.9), *[sure(str(i), 0.01) for i in range(2, 9)]] * 2
    weighed = scaled(AdaptiveConsistency(weights=Likelihood(), confidence=0.6, batch=2), Answers(doubtful))
    plain = scaled(AdaptiveConsistency(confidence=0.6, batch=2), Answers(doubtful))
    assert len(weighed.candidates) < len(plain.candidates)


@given(st.lists(st.text("ab ", max_size=6), min_size=1, max_size=8), st.sampled_from(sorted(UTILITIES)))
def test_the_least_risk_is_that_of_brute_force(texts: list[str], utility: str) -> None:
    choice = scaled(MinimumRisk(utility=utility), Answers(texts, samples=len(texts)))
    risks = [sum(1 - UTILITIES[utility](text, other) for other in texts) / len(texts) for text in texts]
    assert [1 - each.score for each in choice.candidates] == pytest.approx(risks)
    assert 1 - choice.best.score == pytest.approx(min(risks))


def test_a_window_that_agrees_ends_it() -> None:
    answers = ["1", "2", "3", "3", "3", "3", "4"]
    choice = scaled(AdaptiveConsistency(window=2), Answers(answers, samples=7))
    assert [each.answer for each in choice.candidates] == ["1", "2", "3", "3"]
    undecided = Answers(["no", "none"], samples=8)
    assert len(scaled(AdaptiveConsistency(window=4), undecided).candidates) == 8


@given(st.lists(st.floats(0, 9), max_size=30), st.integers(1, 12))
def test_the_lowest_group_is_the_least_mean_of_a_window(values: list[float], window: int) -> None:
    width = min(window, len(values))
    means = [np.mean(values[i : i + width]) for i in range(len(values) - width + 1)] if values else [0.0]
    assert lowest_group(values, window) == pytest.approx(min(means), abs=1e-9)


def test_traces_that_are_unsure_are_ended_and_have_no_vote() -> None:
    def answer(draw: Draw, i: int) -> Candidate:
        if i < 2:
            return sure("is 5" if i else "is 6", *[0.99 if i else 0.9] * 4)
        (rule,) = draw.options["stop"]
        assert isinstance(rule, Unsure)
        assert rule.threshold == pytest.approx(lowest_group([-math.log(0.9 * 0.1) / 2] * 4, 2))
        return Candidate(text="is 6", finish_reason="unsure")

    choice = scaled(DeepConf(warmup=2, keep=1.0, window=2, top=2), Answers(answer, samples=10))
    assert choice.best.answer == "5"
    assert "8 of 10 traces were ended" in choice.why


def test_the_tokens_of_an_answer_are_the_shortest_run_that_says_it() -> None:
    pieces = ["so ", "1", "2", " and", " 3", "4", "5", " it ", "is"]
    assert answer_span(pieces, find_extract("last_number"), "345") == range(4, 7)
    assert answer_span(["9"], find_extract("last_number"), "9") == range(1)


def test_the_margin_is_over_the_tokens_of_the_answer() -> None:
    logprobs = [LogProb(0, math.log(0.6), ((0, math.log(0.6)), (1, math.log(0.3)))) for _ in range(3)]
    logprobs[1] = LogProb(2, math.log(0.2), ((0, math.log(0.5)), (2, math.log(0.2))))
    assert margin(logprobs, range(1)) == pytest.approx(0.3)
    assert margin(logprobs, range(3)) == pytest.approx((0.3 - 0.3 + 0.3) / 3)


def test_cot_decoding_of_a_model_takes_other_first_tokens(float_runner: Runner) -> None:
    found = scale(float_runner, "x = ", {"name": "cot-decoding", "paths": 4}, budget=8, max_tokens=6)
    assert len({each.tokens[0] for each in found.candidates}) == 4
    assert found.spent.samples == 4
    for each in found.candidates:
        prompt = float_runner.tokenizer.encode("x = ")
        whole = float_runner.generate((*prompt, each.tokens[0]), max_tokens=5, search="greedy")
        assert each.tokens[1:] == whole.tokens
        assert float_runner.tokenizer.decode((*prompt, *each.tokens)) == "x = " + each.text


@pytest.mark.parametrize(("texts", "model"), [("7 7 7 8", 0), ("7 8 9 8", 1)])
def test_a_cascade_defers_what_samples_disagree_on(texts: str, model: int) -> None:
    answers = Answers([*texts.split(), "9"], samples=5)
    choice = scaled(Cascade(thresholds=(0.75,), verifier=Votes(), samples=4), answers, models=2)
    assert (choice.best.model, choice.best.text) == (model, "9" if model else "7")
    assert [draw.count for draw in answers.draws] == [4, 1][: model + 1]
    with pytest.raises(OptionError, match="how many samples agree, and there is 1"):
        Cascade(thresholds=(0.5,), verifier="votes")
    with pytest.raises(OptionError, match="neither below nor above nan"):
        Cascade(thresholds=(math.nan,))


@pytest.mark.parametrize(("sureness", "model"), [(0.9, 0), (0.4, 1)])
def test_a_cascade_defers_what_is_below_the_threshold(sureness: float, model: int) -> None:
    def answer(draw: Draw, i: int) -> Candidate:
        return Candidate(text=str(i), model=draw.model, logprobs=(LogProb(0, math.log(sureness)),))

    choice = scaled(Cascade(thresholds=(0.5,), verifier=Likelihood()), Answers(answer), models=2)
    assert choice.best.model == model
    assert len(choice.candidates) == model + 1
    with pytest.raises(OptionError, match="1 thresholds are for 2 models, and there are 3"):
        scaled(Cascade(thresholds=(0.5,)), Answers(answer), models=3)


class Even(Verifier):
    """Accepts even numbers."""

    name = "even"

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        numbers = [int(each.text) for each in candidates]
        return tuple(Verdict(1.0 - n % 2, n % 2 == 0, f"{n} is odd") for n in numbers)
        yield


def test_an_answer_is_refined_until_it_is_accepted() -> None:
    answers = Answers(["3", "5", "4", "6"])
    choice = scaled(Refine(verifier=Even()), answers, prompt="even: ")
    assert (choice.best.text, len(choice.candidates)) == ("4", 3)
    assert [draw.prompt for draw in answers.draws][1:] == [
        f"even: {n}\n\nThat is not right. {n} is odd\nOnce more:\neven: " for n in (3, 5)
    ]
    none = scaled(Refine(verifier=Even()), Answers(["1"], samples=3), prompt="even: ")
    assert "none was accepted" in none.why


def test_a_conversation_is_refined_by_messages() -> None:
    answers = Answers(["1", "2"])
    scaled(Refine(verifier=Even()), answers, prompt=[{"role": "user", "content": "even?"}])
    assert answers.draws[1].prompt == [
        {"role": "user", "content": "even?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "1 is odd"},
    ]


class Worth(Verifier):
    """Scores partial answers by a table: the mean of what their steps are worth."""

    name = "worth"

    def __init__(self, table: dict[str, float]) -> None:
        self._table = table

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        return tuple(Verdict(self._table[each.text]) for each in candidates)
        yield


def test_a_judge_is_another_model_that_is_asked() -> None:
    words = {0: " Yes", 1: "yes", 2: "No", 3: "perhaps"}

    def answer(draw: Draw, i: int) -> Candidate:
        if draw.model == 0:
            return Candidate(text=str(i))
        assert draw.prompt == f"even: {i // 2}?"
        chances = {0: 0.3, 1: 0.3, 2: 0.2, 3: 0.2} if i // 2 == 0 else {0: 0.1, 2: 0.6, 3: 0.3}
        return Candidate(text="", logprobs=(LogProb(0, 0.0, tuple((t, math.log(p)) for t, p in chances.items())),))

    judge = Judge(rubric="{prompt}{text}?")
    context = Context("even: ", 2, spell=lambda candidate: (words[candidate.tokens[0]],))
    flow = judge.judge(context, (Candidate(text="0"), Candidate(text="1")))
    draw = next(flow)
    draw = flow.send((answer(draw, 0),))
    with pytest.raises(StopIteration) as end:
        flow.send((answer(draw, 2),))
    first, second = end.value.value
    assert (first.score, first.accepted) == (pytest.approx(0.6 / 0.8), True)
    assert (second.score, second.accepted) == (pytest.approx(0.1 / 0.7), False)
    with pytest.raises(OptionError, match="asks model 1, and there are 1"):
        next(judge.judge(Context("x", 1), (Candidate(text="0"),)))


def test_a_judge_of_a_bundle_is_asked_within_the_budget(float_runner: Runner) -> None:
    how = {"name": "best-of-n", "verifier": {"name": "judge", "rubric": "{text}", "yes": "import", "no": "from"}}
    found = scale([float_runner, float_runner], "# a file\n", how, budget="3,40tokens", seed=1, max_tokens=6)
    assert found.spent.samples == 3
    assert all(0 <= each.score <= 1 for each in found.candidates)


def test_votes_are_shares_of_what_is_judged_together() -> None:
    choice = scaled(BestOfN(verifier=Votes()), Answers(["is 1", "is 2", "2", "none"], samples=4))
    assert [each.score for each in choice.candidates] == [0.25, 0.5, 0.5, 0.0]


LETTERS, DEPTH = "abc", 3


def grow(draw: Draw, i: int) -> Candidate:
    """The children of a node one after the other: "a", "ab", "abc"."""
    before = draw.after.text if draw.after else ""
    text = before + LETTERS[i % len(LETTERS)]
    reason = "eos" if len(text) == DEPTH else "step"
    return Candidate(text=text, tokens=tuple(map(ord, text)), finish_reason=reason)


@given(st.integers(0, 1000), st.sampled_from(["beam", "best-first"]))
def test_a_tree_search_as_wide_as_the_tree_finds_the_best_leaf(seed: int, policy: str) -> None:
    texts = ["".join(each) for depth in range(1, DEPTH + 1) for each in product(LETTERS, repeat=depth)]
    worth = dict(zip(texts, np.random.default_rng(seed).random(len(texts)), strict=True))
    best = max((text for text in texts if len(text) == DEPTH), key=worth.__getitem__)
    width = len(LETTERS) ** DEPTH
    search = TreeSearch(policy=policy, value=Worth(worth), expansion=Steps(children=3), width=width)
    assert scaled(search, Answers(grow, samples=200)).best.text == best


def test_best_first_goes_back_to_what_is_better() -> None:
    texts = {"a": 0.9, "b": 0.8, "c": 0.1, "aa": 0.2, "ab": 0.2, "ac": 0.2, "ba": 0.7, "bb": 0.1, "bc": 0.1}
    worth = {**texts, "baa": 0.9, "bab": 0.1, "bac": 0.1}
    search = TreeSearch(policy="best-first", value=Worth(worth), expansion=Steps(children=3), width=1)
    choice = scaled(search, Answers(grow, samples=200))
    assert choice.best.text == "baa"
    assert [each.text for each in choice.candidates][3:] == ["aa", "ab", "ac", "ba", "bb", "bc", "baa", "bab", "bac"]
    greedy = TreeSearch(policy="beam", value=Worth({**worth, "aaa": 0.3, "aab": 0.1, "aac": 0.1}), width=1)
    found = scaled(TreeSearch(**{**vars(greedy), "expansion": Steps(children=3)}), Answers(grow, samples=200))
    assert found.best.text == "aaa"


def test_steps_of_a_model_end_at_the_separator(float_runner: Runner) -> None:
    scaler = {"name": "tree", "width": 2, "expansion": {"children": 2}}
    found = scale(float_runner, "import os\n", scaler, budget="12,80tokens", seed=1, max_tokens=24)
    steps: Sequence[Candidate] = found.candidates
    assert found.spent.samples == sum(each.whole for each in steps) <= 12
    assert all(len(each.tokens) <= 24 for each in steps)
    assert {each.finish_reason for each in steps} <= {"step", "length", "eos", "budget"}
    deep = [each for each in steps if any(each.tokens[: len(o.tokens)] == o.tokens for o in steps if o is not each)]
    assert deep
    for each in deep:
        assert "\n" in each.text
