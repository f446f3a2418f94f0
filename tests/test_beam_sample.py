"""tests: beam sampling: what is drawn, and that all the rest is as in transformers."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from edgewise.errors import GenerationError, OptionError
from edgewise.registry import registry
from edgewise.search.beam import Beam
from edgewise.search.beam_sample import BeamSample
from edgewise.search.greedy import Greedy
from edgewise.search.named import find_search
from edgewise.search.sample import Sample
from edgewise.search.samples import several
from generating import LIMIT, PROMPT, Tiny
from tables import Letters, Texts, search, table


class Surest(BeamSample):
    """Draws what is most probable, always."""

    ranked = Beam.ranked


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


def test_continuations_are_drawn_without_replacement() -> None:
    """Chi-square over the pairs that may be drawn from six: p > 1e-6 with a fixed seed."""
    weights = np.array([0.4, 0.25, 0.15, 0.1, 0.07, 0.03])
    pairs = list(combinations(range(6), 2))
    chances = [weights[a] * weights[b] * (1 / (1 - weights[a]) + 1 / (1 - weights[b])) for a, b in pairs]
    rng, draws = np.random.default_rng(3), 20_000
    drawn = [tuple(BeamSample().ranked(np.log(weights), 2, rng).tolist()) for _ in range(draws)]
    assert all(weights[a] > weights[b] for a, b in drawn), "the better one comes first"
    expected = np.array(chances) * draws
    counts = np.array([drawn.count(pair) for pair in pairs])
    assert ((counts - expected) ** 2 / expected).sum() < 14 + 5 * 28**0.5 + 12


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
