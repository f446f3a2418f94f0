"""tests: several samples of one prompt: independent of each other, and of one prefill."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from drafting import chain, near
from edgewise.errors import OptionError
from edgewise.runtime.runner import Runner
from edgewise.search.greedy import Greedy
from edgewise.search.penalties import FrequencyPenalty
from edgewise.search.protocol import Extend, FloatArray, Search
from edgewise.search.sample import Sample
from edgewise.search.samples import Samples
from edgewise.search.speculate import Speculative
from tables import Model, Texts, search, table

PROMPT = (1, 2, 3, 4)
MODEL = table(1, 12)


class Counted(Texts):
    """Counts requests, and the tokens that are computed."""

    def __init__(self, *models: Model) -> None:
        super().__init__(*models)
        self.requests = 0
        self.tokens = 0

    def extend(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]:
        self.requests += bool(extends)
        self.tokens += sum(len(extend.tokens) for extend in extends)
        return super().extend(extends)


def samples(how: Search, n: int, texts: Texts | None = None, **more: Any) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(5)
    texts = texts or Texts(MODEL)
    found = search(Samples(search=how, n=n), texts, prompt=PROMPT, rng=rng, **{"limit": 20, **more})
    return [sequence.tokens for sequence in found]


@pytest.mark.parametrize("how", [Sample(), Sample(top_k=4), Speculative(search=Sample())], ids=lambda how: how.name)
def test_a_sample_does_not_depend_on_how_many_there_are(how: Search) -> None:
    (alone,) = search(how, Texts(MODEL), limit=20, prompt=PROMPT, rng=np.random.default_rng(5))
    assert samples(how, 1) == [alone.tokens]
    four = samples(how, 4)
    assert four[0] == alone.tokens
    assert four[:3] == samples(how, 3)
    assert len(set(four)) == 4


def test_a_sample_does_not_depend_on_when_others_end() -> None:
    free = samples(Sample(), 6)
    ends = samples(Sample(), 6, eos=(3, 7))
    assert len({len(tokens) for tokens in ends}) > 2
    for tokens, whole in zip(ends, free, strict=True):
        assert tokens == whole[: len(tokens)]
        assert len(tokens) == 20 or whole[len(tokens)] in (3, 7)


def test_a_prompt_is_computed_once_and_a_step_is_one_request() -> None:
    texts = Counted(MODEL)
    samples(Sample(), 5, texts)
    assert texts.tokens == len(PROMPT) + 5 * 19  # what comes last is not computed
    assert texts.requests == 1 + 19
    assert (texts.copies, len(texts.rows)) == (4, 5)


def test_a_draft_s_prompt_is_computed_once_too() -> None:
    texts = Counted(chain(0), near(chain(0), 0.5))
    expected = samples(Sample(), 3, Texts(chain(0)))
    assert samples(Speculative(search=Sample()), 3, texts, assistants=(99,)) == expected
    assert texts.copies == 4


def test_processors_and_log_probabilities_go_along() -> None:
    more: dict[str, Any] = {"processors": (FrequencyPenalty(1.5),), "logprobs": 1, "limit": 20, "prompt": PROMPT}
    rng = np.random.default_rng(5)
    found = search(Samples(search=Sample(), n=3), Texts(MODEL), rng=rng, **more)
    (alone,) = search(Sample(), Texts(MODEL), rng=np.random.default_rng(5), **more)
    assert found[0] == alone
    assert all(len(sequence.logprobs) == 20 for sequence in found)
    assert [each.token for each in found[2].logprobs] == list(found[2].tokens)


def test_tokens_of_all_samples_come_as_often_as_their_probability_says() -> None:
    """The first token of 4 samples of 1,000 seeds, within five deviations."""
    weights = np.exp(MODEL(PROMPT).astype(np.float64))
    counts = np.zeros(12)
    for seed in range(1000):
        found = search(
            Samples(search=Sample(), n=4), Texts(MODEL), limit=1, prompt=PROMPT, rng=np.random.default_rng(seed)
        )
        for sequence in found:
            counts[sequence.tokens[0]] += 1
    expected = 4000 * weights / weights.sum()
    assert (np.abs(counts - expected) < 5 * expected**0.5 + 3).all()


def test_n_gives_as_many_completions_in_order(float_runner: Runner) -> None:
    result = float_runner.generate("def ", max_tokens=8, search="sample", seed=1, n=3)
    assert len(result.completions) == 3
    assert len({completion.text for completion in result.completions}) == 3
    assert result.text == float_runner.generate("def ", max_tokens=8, search="sample", seed=1).text
    pieces = [
        str(piece)
        for piece in float_runner.stream("def ", max_tokens=8, search="sample", seed=1, n=3)
        if piece.sequence == 2
    ]
    assert "".join(pieces) == result.completions[2].text


def test_n_of_a_search_without_chance_is_n_times_the_same(float_runner: Runner) -> None:
    result = float_runner.generate("def ", max_tokens=4, search=Greedy(), n=2)
    assert result.completions[0] == result.completions[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is 0; it must be 1 or more"),
        ({"n": 2, "search": "beam"}, "search 'beam' gives its sequences together; .* num_return"),
    ],
)
def test_what_cannot_be_sampled_is_refused(float_runner: Runner, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        float_runner.generate("def ", **options)
