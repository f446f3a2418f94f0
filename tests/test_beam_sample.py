"""tests: beam sampling: what is drawn, and that all the rest is as in transformers."""

import math
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from edgewise.errors import GenerationError, OptionError
from edgewise.registry import registry
from edgewise.search.beam import Beam
from edgewise.search.beam_sample import BeamSample
from edgewise.search.front import Candidates, Front
from edgewise.search.greedy import Greedy
from edgewise.search.hypotheses import Completed, Hypothesis, Ranking
from edgewise.search.named import find_search
from edgewise.search.protocol import Context, FloatArray
from edgewise.search.sample import Sample
from edgewise.search.samples import several
from generating import LIMIT, PROMPT, Tiny
from tables import Letters, Texts, search, table


class Surest(BeamSample):
    """Draws what is most probable, always."""

    def candidates(self, scores: FloatArray, count: int, rng: np.random.Generator) -> Candidates:
        assert isinstance(self.search, Sample)
        ids, weights = self.search.candidates(scores)
        scores = np.full(len(scores), -np.inf, np.float32)
        with np.errstate(divide="ignore"):  # some have no weight
            scores[slice(None) if ids is None else ids] = np.log(weights / weights.sum())
        return Beam.candidates(self, scores, count, rng)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("beam"))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7, "top_k": 20},
        {"temperature": 1.8, "top_p": 0.8, "length_penalty": 0.0, "early_stopping": True},
        {"temperature": 1.5, "min_p": 0.05, "early_stopping": "never"},
    ],
)
def test_all_but_the_draw_is_that_of_transformers(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Both draw the most probable here. Transformers gives a distribution to draw from where it is told to."""
    eos = (7, 30, 111)
    monkeypatch.setattr(torch, "multinomial", lambda weights, num_samples: weights.topk(num_samples).indices)
    given = {"top_k": 0, "do_sample": True, "renormalize_logits": True, **options}
    expected = tiny.generate(eos, num_beams=3, num_return_sequences=3, **given)
    beam = {key: options[key] for key in ("length_penalty", "early_stopping") if key in options}
    sample = Sample(**{key: value for key, value in options.items() if key not in beam})
    how = Surest(num_beams=3, num_return=3, search=sample, **beam)
    found = search(how, Texts(tiny.scores), limit=LIMIT, prompt=PROMPT, eos=eos)
    assert [each.tokens for each in found] == [tokens for tokens, _ in expected]
    assert [each.score for each in found] == pytest.approx([score for _, score in expected], rel=1e-4)


def test_continuations_are_drawn_without_replacement_over_all_hypotheses() -> None:
    """Chi-square over the better one of two that are drawn of six: p > 1e-6 with a fixed seed."""
    rows = {0: np.array([0.5, 0.3, 0.2]), 1: np.array([0.1, 0.15, 0.75])}
    totals = {0: 0.7, 1: 0.3}
    chances = {(row, token): totals[row] * float(rows[row][token]) for row in rows for token in range(3)}
    pairs = {
        (one, two): chances[one] * chances[two] * (1 / (1 - chances[one]) + 1 / (1 - chances[two]))
        for one, two in combinations(chances, 2)
    }
    context = Context((1,), 9, frozenset(), rng=np.random.default_rng(3))
    ranking = Ranking(length_penalty=1.0, early_stopping=False, limit=9)
    counts, draws = Counter[tuple[int, int]](), 10_000
    for _ in range(draws):
        front = Front(1, Completed(1, ranking), BeamSample(search=Sample()), context)
        front.open = [Hypothesis(row, (), (7,), math.log(total)) for row, total in totals.items()]
        front.step({row: np.log(each).astype(np.float32) for row, each in rows.items()})
        counts[front.open[0].row, front.open[0].tokens[-1]] += 1
    expected = dict.fromkeys(chances, 0.0)
    for pair, chance in pairs.items():
        expected[max(pair, key=lambda each: chances[each])] += chance * draws
    statistic = sum((counts[each] - mean) ** 2 / mean for each, mean in expected.items() if mean)
    assert not counts[min(chances, key=lambda each: chances[each])], "the least probable is never the better one"
    assert statistic < 4 + 5 * 8**0.5 + 12


def test_a_seed_repeats_and_another_says_something_else() -> None:
    def drawn(seed: int) -> tuple[int, ...]:
        how = BeamSample(num_beams=3, search=Sample(temperature=2.0))
        return search(how, Texts(table(0, 50)), limit=12, rng=np.random.default_rng(seed))[0].tokens

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_cold_beam_is_beam_search() -> None:
    """At a low temperature the most probable is drawn, of the sequences as well as of the tokens."""
    for seed in range(4):
        model = table(seed, 20)
        cold = search(BeamSample(num_beams=1, search=Sample(temperature=1e-3)), Texts(model), limit=6, eos=(3,))
        assert cold[0].tokens == search(Beam(num_beams=1), Texts(model), limit=6, eos=(3,))[0].tokens
        greedy = search(BeamSample(num_beams=3, search=Greedy()), Texts(model), limit=6, eos=(3,))
        assert greedy[0].tokens == search(Greedy(), Texts(model), limit=6, eos=(3,))[0].tokens


def test_the_inner_search_may_be_a_table_and_must_be_one_that_draws() -> None:
    assert registry().searches.get("beam_sample") is BeamSample
    given = {"name": "beam_sample", "search": {"name": "sample", "temperature": 0.5}}
    assert find_search(given, Letters()) == BeamSample(search=Sample(temperature=0.5))
    with pytest.raises(OptionError, match="a beam cannot draw by search 'beam'; give it one such as sample"):
        find_search({"name": "beam_sample", "search": "beam"}, Letters())
    with pytest.raises(GenerationError, match="has not been bound"):
        search(BeamSample(), Texts(table(0, 20)), limit=3)


def test_n_is_not_for_beams_that_are_drawn() -> None:
    with pytest.raises(OptionError, match=r"n is 2, and search 'beam_sample' gives its sequences together; .* num_ret"):
        several(BeamSample(search=Sample()), 2)
