"""tests: searches that go token by token: tables of numbers in place of a model, transformers as the oracle."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_outputs import CausalLMOutputWithPast

from edgewise.errors import GenerationError, OptionError
from edgewise.options import parse, record
from edgewise.registry import registry
from edgewise.search.greedy import Greedy
from edgewise.search.guided import Guided
from edgewise.search.mirostat import Mirostat
from edgewise.search.penalties import FrequencyPenalty, PresencePenalty, RepetitionPenalty
from edgewise.search.protocol import Context, Emit, FloatArray, Reply, Search
from edgewise.search.sample import Sample
from edgewise.search.stepwise import Stepwise
from tables import Letters, Model, Texts, log_softmax, search, table

VOCABULARY = 50


def chain(seed: int) -> Model:
    """A model without a memory: the scores after a token depend on the token alone."""
    scores = np.random.default_rng(seed).normal(0, 3, (VOCABULARY, VOCABULARY)).astype(np.float32)
    return lambda text: scores[text[-1]].copy()


def run(how: Search, model: Model, count: int, **context: Any) -> list[int]:
    """What a search emits for the prompt (1, 2) in `count` steps."""
    return list(search(how, Texts(model), limit=count, **context)[0].tokens)


def test_greedy_takes_the_best_at_each_step() -> None:
    model = chain(0)
    tokens = [2]
    for _ in range(20):
        tokens.append(int(model((tokens[-1],)).argmax()))
    assert run(Greedy(), model, 20) == tokens[1:]


def test_a_search_appends_its_tokens_to_one_row_in_place() -> None:
    flow = Greedy().flow(Context((7, 8), 3, frozenset()))
    first = next(flow).extend[0]
    assert (first.tokens, first.parent) == ((7, 8), None)
    emitted = flow.send(Reply((np.array([[0, 1, 0]], np.float32),)))
    assert (emitted.emit, emitted.extend) == ((Emit(0, (1,)),), ())
    then = flow.send(Reply()).extend[0]
    assert (then.tokens, then.parent, then.row) == ((1,), first.row, first.row)


def test_temperature_zero_and_top_k_one_are_greedy() -> None:
    expected = run(Greedy(), chain(3), 20)
    for how in (Sample(temperature=0), Sample(top_k=1), Mirostat(temperature=0), Mirostat(tau=1e-6, eta=0)):
        assert run(how, chain(3), 20) == expected


def test_the_same_seed_gives_the_same_tokens_and_another_gives_others() -> None:
    def sampled(seed: int) -> list[int]:
        return run(Sample(), chain(0), 30, rng=np.random.default_rng(seed))

    assert sampled(5) == sampled(5)
    assert sampled(5) != sampled(6)


def test_penalties_change_what_a_search_says() -> None:
    def stuck(text: Sequence[int]) -> FloatArray:
        return np.array([1.0, 0.9, 0.8, 0.0], np.float32)

    assert run(Greedy(), stuck, 4) == [0, 0, 0, 0]
    assert run(Greedy(), stuck, 4, processors=(PresencePenalty(0.15),)) == [0, 1, 0, 0]
    assert run(Greedy(), stuck, 4, processors=(FrequencyPenalty(0.15),)) == [0, 1, 0, 2]
    assert run(Greedy(), stuck, 3, processors=(RepetitionPenalty(2.0),)) == [0, 0, 0]  # 1 and 2 are in the prompt
    both = (RepetitionPenalty(2.0), PresencePenalty(0.2))
    assert run(Sample(temperature=0), stuck, 3, processors=both) == [0, 1, 2]


class Ban:
    """Bans some tokens; the simplest processor."""

    def __init__(self, *tokens: int) -> None:
        self._tokens = list(tokens)

    def start(self, prompt: tuple[int, ...]) -> None: ...

    def advance(self, state: None, tokens: tuple[int, ...]) -> None: ...

    def apply(self, state: None, logits: FloatArray) -> FloatArray:
        logits[self._tokens] = -np.inf
        return logits


STEPWISE = [Greedy(), Sample(), Sample(top_k=10), Sample(top_p=0.9), Sample(xtc_probability=0.5), Mirostat(tau=2.0)]


@pytest.mark.parametrize("how", [*STEPWISE, Guided(search=Sample(), negative=(3,))], ids=str)
def test_a_caller_s_processors_apply_in_every_search(how: Search) -> None:
    banned = (3, 6, 7, 16)
    unbanned = run(how, chain(0), 300)
    assert set(unbanned) & set(banned), "the test needs a search that would choose them"
    assert not set(run(how, chain(0), 300, processors=(Ban(*banned),))) & set(banned)


@pytest.mark.parametrize("how", STEPWISE, ids=str)
def test_a_search_left_without_a_token_says_so(how: Search) -> None:
    with pytest.raises(GenerationError, match="all are banned"):
        run(how, chain(0), 1, processors=(Ban(*range(VOCABULARY)),))


@pytest.mark.parametrize("how", STEPWISE, ids=str)
def test_log_probabilities_are_the_model_s_own(how: Search) -> None:
    """Before bans, temperatures and filters; to float32."""
    model = chain(1)
    (found,) = search(how, Texts(model), limit=8, logprobs=3, processors=(Ban(0), RepetitionPenalty(1.5)))
    text: tuple[int, ...] = (1, 2)
    for token, said in zip(found.tokens, found.logprobs, strict=True):
        exact = log_softmax(model(text))
        assert said.token == token
        assert math.isclose(said.logprob, exact[token], abs_tol=1e-5)
        assert [each for each, _ in said.top] == np.argsort(-exact)[:3].tolist()
        text += (token,)


@pytest.mark.parametrize("how", STEPWISE, ids=str)
def test_candidates_are_what_is_drawn_from(how: Stepwise) -> None:
    """Tokens without a weight never come; the state of one that has a state is what `choose` returned."""
    rng, state = np.random.default_rng(0), how.start()
    for seed in range(200):
        scores = np.random.default_rng(seed).normal(0, 2, 20).astype(np.float32)
        ids, weights = how.candidates(scores.copy(), state)
        token, state = how.choose(scores.copy(), state, rng)
        possible = np.arange(20)[weights > 0] if ids is None else ids[weights > 0]
        assert token in possible
    assert how.stateful == (state is not None)


# Mirostat, beside its definition.


def test_mirostat_is_its_definition() -> None:
    """The same random numbers, slowly and in float64: the same tokens, and the same mu."""
    how = Mirostat(tau=3.0, eta=0.2, temperature=1.3)
    fast, slow = np.random.default_rng(1), np.random.default_rng(1)
    state, mu = how.start(), 6.0
    for step in range(300):
        scores = np.random.default_rng(step).normal(0, 2, 40).astype(np.float32)
        p = np.exp(log_softmax(scores / np.float32(1.3)))
        kept = [i for i in range(40) if -math.log2(p[i]) <= mu] or [int(p.argmax())]
        shares = p[kept] / p[kept].sum()
        place = int(np.searchsorted(np.cumsum(shares), slow.random(), "right"))
        mu -= 0.2 * (-math.log2(shares[place]) - 3.0)
        token, state = how.choose(scores.copy(), state, fast)
        assert token == kept[place]
        assert math.isclose(state, mu, rel_tol=1e-5)


def surprise(how: Stepwise, steps: int) -> float:
    """The mean surprise of what a search draws, in bits, once it has settled."""
    rng, state, surprises = np.random.default_rng(0), how.start(), []
    for step in range(steps):
        scores = np.random.default_rng(step % 97).normal(0, 1.5, 200).astype(np.float32)
        ids, weights = how.candidates(scores.copy(), state)
        token, state = how.choose(scores.copy(), state, rng)
        place = token if ids is None else int(np.flatnonzero(ids == token)[0])
        surprises.append(-math.log2(weights[place] / weights.sum()))
    return float(np.mean(surprises[steps // 4 :]))


@pytest.mark.parametrize("tau", [2.0, 3.5])
def test_mirostat_keeps_the_surprise_near_its_target(tau: float) -> None:
    assert abs(surprise(Mirostat(tau=tau), 2000) - tau) < 0.1
    assert abs(surprise(Sample(), 500) - tau) > 1


# Guidance with a negative prompt.


class Fixed(torch.nn.Module):
    """A model as transformers' processor calls it: scores that depend on the whole text."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model
        self._text: tuple[int, ...] = ()

    def forward(self, ids: torch.Tensor, past_key_values: Any = None, **_: Any) -> CausalLMOutputWithPast:
        self._text = (() if past_key_values is None else self._text) + tuple(ids[0].tolist())
        logits = torch.from_numpy(self._model(self._text)[None, None].copy())
        return CausalLMOutputWithPast(logits=logits, past_key_values=(1,))  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("negative", [(5, 6, 7), ()])
def test_guidance_is_that_of_transformers(scale: float, negative: tuple[int, ...]) -> None:
    model = table(4, 30)
    ids: Any = torch.tensor([negative]) if negative else None
    theirs: Any = transformers.UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, Fixed(model), ids)
    text = [1, 2]
    for _ in range(12):
        scores = theirs(torch.tensor([text]), torch.from_numpy(model(tuple(text))[None].copy()))
        text.append(int(scores.argmax()))
    assert run(Guided(scale=scale, negative=negative).bind(Letters()), model, 12) == text[2:]
    assert text[2:] != run(Greedy(), model, 12)


def test_a_scale_of_one_is_the_search_alone() -> None:
    texts = Texts(table(4, 30))
    (found,) = search(Guided(scale=1.0, search=Greedy()), texts, limit=6)
    assert list(found.tokens) == run(Greedy(), table(4, 30), 6)
    assert texts.most == 1


def test_the_wrapped_search_may_be_given_by_name_and_the_negative_prompt_as_a_text() -> None:
    given = {"search": {"name": "sample", "top_k": 1}, "scale": 2.0, "negative": "cd"}
    guided = parse(Guided, given, what="search 'guided'").bind(Letters())
    assert guided == Guided(search=Sample(top_k=1), scale=2.0, negative=(2, 3))
    expected = run(Guided(search=Greedy(), scale=2.0, negative=(2, 3)), table(4, 27), 8)
    assert run(guided, table(4, 27), 8) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": math.inf}, "the scale of guidance is inf; it must be a finite number"),
        ({"search": "gredy"}, "no search is named 'gredy'; did you mean 'greedy'?"),
        ({"search": {"name": "sample", "top_q": 1}}, "search 'sample': no option is named 'top_q'"),
        ({"negative": [99]}, "token 99 does not exist: the vocabulary has 27, from 0 on"),
    ],
)
def test_guidance_that_cannot_be_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        parse(Guided, options, what="search 'guided'").bind(Letters())
    assert "\n" not in str(caught.value)


def test_a_search_that_is_not_bound_says_so() -> None:
    with pytest.raises(OptionError, match="is not bound yet"):
        Guided().flow(Context((1,), 1, frozenset()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0.0}, "tau is 0.0; it must be above 0 bits"),
        ({"eta": 1.5}, "eta is 1.5; it must be from 0"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0"),
    ],
)
def test_a_mirostat_that_cannot_be_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(Mirostat, options, what="search 'mirostat'")


def test_every_search_is_found_by_its_name_and_written_back() -> None:
    for name in ("greedy", "guided", "mirostat", "sample"):
        found = registry().searches.get(name)
        assert found.name == name
        assert dataclasses.is_dataclass(found)
    sample = Sample(temperature=0.7, top_p=0.9, order=("top_p", "temperature"))
    assert parse(Sample, record(sample), what="sample") == sample
