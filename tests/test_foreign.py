"""tests: bundles of decoders that others have exported: everything that a runner does, beside transformers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tables
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from edgewise.search.named import find_search
from edgewise.text.vocabulary import TokenizerVocabulary
from foreign import FIXTURES, LENGTH, NAMES, STEPS, Scores, export_by_optimum, oracle
from tables import Texts
from test_every_search import SEED, table

SEARCHES = registry().searches.names()
OFTEN = ("bloom", "gpt2", "opt")  # the canonical graphs of the others are held to transformers in any run
PROMPT = tuple(np.random.default_rng(5).integers(3, 264, 9).tolist() * 2)
LIMIT = 10


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in NAMES],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def runner(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    path = tmp_path_factory.mktemp(name) / "model.edge"
    with pytest.MonkeyPatch.context() as patch:
        export_by_optimum(patch)
        build(FIXTURES / name, output=path, recipe=Recipe(), hidden_states=True, load_check=False)
    with Runner.open(path, threads=1) as opened:
        yield opened


@pytest.mark.parametrize("pieces", [(LENGTH,), (5, 1, 13, 2, LENGTH), (1,) * LENGTH])
def test_scores_are_those_of_transformers_however_tokens_are_appended(
    runner: Runner, name: str, pieces: tuple[int, ...]
) -> None:
    wanted, session, found = oracle(name), Session(runner.model, capacity=7), []
    start = 0
    for size in pieces:
        tokens = wanted.tokens[start : start + size]
        found.append(session.prefill(tokens, scores=len(tokens)).copy())
        start += len(tokens)
    np.testing.assert_allclose(np.concatenate(found), wanted.logits, rtol=0, atol=1e-4)


def test_greedy_text_is_that_of_transformers(runner: Runner, name: str) -> None:
    wanted = oracle(name)
    options: dict[str, Any] = {"search": "greedy", "processors": [{"name": "no_repeat_ngram", "size": 2}]}
    assert not runner.eos & set(wanted.greedy)
    assert runner.generate(wanted.tokens, max_tokens=STEPS, **options).tokens == wanted.greedy


@pytest.fixture(scope="module")
def scores(name: str) -> Scores:
    return Scores(name)


@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_finds_what_it_finds_without_a_cache(runner: Runner, scores: Scores, search: str) -> None:
    """Forks, rewinds, drafts and rows of all kinds: beside the exported graph, which reads each text from its start."""
    how = find_search(table(search), TokenizerVocabulary(runner.tokenizer, runner.facts.vocab_size, eos=runner.eos))
    assistants = [runner] * how.assistants
    texts = Texts(*[scores.logits] * (1 + how.assistants), hidden=scores.hidden)
    more = {"rng": np.random.default_rng(SEED), "assistants": (runner.model.context,) * how.assistants}
    wanted = tables.search(how, texts, prompt=PROMPT, limit=LIMIT, eos=sorted(runner.eos), **more)
    found = runner.generate(PROMPT, search=how, seed=SEED, max_tokens=LIMIT, assistants=assistants)
    assert [each.tokens for each in found.completions] == [each.tokens for each in wanted[: len(found.completions)]]
