"""tests: contrastive decoding: by its equation on tables, and with a smaller bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.bundle.read import Bundle
from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.runtime.runner import Runner
from edgewise.search.amateur import Amateur
from edgewise.search.bans import AllowedTokens
from edgewise.search.beam import Beam
from edgewise.search.greedy import Greedy
from edgewise.search.named import find_search
from edgewise.search.protocol import FloatArray
from edgewise.search.sample import Sample
from tables import Letters, Model, Texts, log_softmax, search, table

PROMPT = (1, 2)
VOCABULARY = 20


def contrast(expert: FloatArray, amateur: FloatArray, alpha: float, beta: float | None) -> NDArray[np.float64]:
    """Equation 2 of 2309.09117 (with beta), or equation 3 of 2210.15097."""
    e, a = log_softmax(expert), log_softmax(amateur)
    scores = e - a if beta is None else (1 + beta) * e - beta * a
    return np.where(np.exp(e) >= alpha * np.exp(e).max(), scores, -np.inf)


def tables(seed: int) -> tuple[Model, Model]:
    return table(seed, VOCABULARY), table(seed + 50, VOCABULARY)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.5), (0.02, 2.0), (0.1, None), (0.0, 0.3)])
def test_tokens_are_those_of_the_equation(seed: int, alpha: float, beta: float | None) -> None:
    expert, amateur = tables(seed)
    text: tuple[int, ...] = PROMPT
    for _ in range(12):
        text += (int(contrast(expert(text), amateur(text), alpha, beta).argmax()),)
    how = Amateur(search=Greedy(), alpha=alpha, beta=beta)
    assert search(how, Texts(expert, amateur), limit=12, assistants=(99,))[0].tokens == text[2:]


def test_an_implausible_token_is_never_said_whatever_the_amateur_thinks() -> None:
    """The mask holds in a search at random: every token drawn has a tenth of the best one's probability."""
    expert, amateur = tables(0)
    how = Amateur(search=Sample(temperature=5.0), alpha=0.1, beta=1.0)
    tokens = search(how, Texts(expert, amateur), limit=60, assistants=(99,))[0].tokens
    for i, token in enumerate(tokens):
        chances = np.exp(log_softmax(expert(PROMPT + tokens[:i])))
        assert chances[token] >= 0.1 * chances.max() * (1 - 1e-5)
    assert len(set(tokens)) > 5


def test_an_implausible_token_comes_where_processors_leave_no_other() -> None:
    expert, amateur = tables(0)
    allowed = AllowedTokens(tokens=tuple(int(token) for token in expert(PROMPT).argsort()[:3]))
    found = search(Amateur(search=Greedy()), Texts(expert, amateur), limit=1, processors=(allowed,), assistants=(99,))
    assert found[0].tokens == (int(expert(PROMPT).argsort()[2]),)


def test_without_weight_or_choice_the_expert_speaks_alone() -> None:
    expert, amateur = tables(1)
    for alone in (Greedy(), Beam(num_beams=3)):
        found = search(alone, Texts(expert), limit=8, eos=(3,))
        mirrored = Amateur(search=alone, alpha=0.0, beta=0.0)
        assert search(mirrored, Texts(expert, amateur), limit=8, eos=(3,), assistants=(99,)) == found
    best = search(Amateur(search=Sample(), alpha=1.0), Texts(expert, amateur), limit=8, assistants=(99,))
    assert best[0].tokens == search(Greedy(), Texts(expert), limit=8)[0].tokens


def test_beams_are_ranked_by_both() -> None:
    """A wide beam over two tokens a step, against every sequence."""
    expert, amateur = table(4, 2), table(54, 2)
    scores = {}
    for number in range(16):
        tokens = tuple(int(bit) for bit in f"{number:04b}")
        pairs = [(expert(PROMPT + tokens[:i]), amateur(PROMPT + tokens[:i])) for i in range(4)]
        steps = [log_softmax(contrast(*pair, 0.0, 0.5))[tokens[i]] for i, pair in enumerate(pairs)]
        scores[tokens] = float(np.mean(steps))
    texts = Texts(expert, amateur)
    found = search(Amateur(search=Beam(num_beams=16), alpha=0.0), texts, limit=4, assistants=(99,))
    assert found[0].tokens == max(scores, key=lambda tokens: scores[tokens])
    assert found[0].score == pytest.approx(max(scores.values()), rel=1e-5)


@pytest.mark.parametrize("size", [VOCABULARY - 5, VOCABULARY + 5])
def test_an_amateur_may_score_other_tokens_that_do_not_exist(size: int) -> None:
    expert, amateur = table(0, VOCABULARY), table(9, size)
    how = Amateur(search=Sample(temperature=9.0), alpha=0.0, beta=0.2)
    tokens = search(how, Texts(expert, amateur), limit=200, assistants=(999,))[0].tokens
    assert max(tokens) == min(size, VOCABULARY) - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha is 1.5; it must be from 0 (all tokens) to 1 (the best one)"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"beta": -1.0}, "beta is -1.0; it must be 0 (no amateur) or above"),
        ({"search": "gredy"}, "no search is named 'gredy'"),
    ],
)
def test_an_option_out_of_range_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        find_search({"name": "amateur", **options}, Letters())
    assert message in str(caught.value)


def test_it_is_found_by_its_name_and_needs_an_assistant_with_room() -> None:
    assert registry().searches.get("amateur") is Amateur
    texts = Texts(*tables(0))
    with pytest.raises(GenerationError, match="has not been bound"):
        search(Amateur(), texts, limit=3)
    with pytest.raises(OptionError, match="search 'amateur' needs a smaller bundle to lead away from"):
        search(Amateur(search=Greedy()), texts, limit=3)
    with pytest.raises(ContextOverflow, match="12 tokens do not fit in the amateur's context of 11"):
        search(Amateur(search=Greedy()), texts, limit=10, assistants=(11,))


def test_a_smaller_bundle_is_an_amateur(pycoder: Path, pycoder_bundle: Bundle, tmp_path: Path) -> None:
    """The demo in floats, led away from the demo in four bits: what both say, by the equation."""
    build(pycoder, output=tmp_path / "float.edge", recipe=Recipe(()), load_check=False)
    with Runner.open(tmp_path / "float.edge", threads=1) as expert, Runner.open(pycoder_bundle.path) as amateur:
        text = prompt = expert.tokenizer.encode("def read_json(")
        sessions = [each.session(capacity=64) for each in (expert, amateur)]
        scores = [session.prefill(prompt)[-1].copy() for session in sessions]
        for _ in range(16):
            text += (int(contrast(scores[0], scores[1], 0.1, 4.0).argmax()),)
            scores = [session.decode(text[-1])[-1].copy() for session in sessions]
        how = {"name": "amateur", "search": "greedy", "beta": 4.0}
        result = expert.generate(prompt, max_tokens=16, search=how, assistants=[amateur])
        assert result.tokens == text[len(prompt) :]
        assert result.tokens != expert.generate(prompt, max_tokens=16, search="greedy").tokens
