"""tests: bundles whose graphs leave their cache to the runtime: everything that a runner does comes out the same."""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import ContextOverflow, GenerationError
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from edgewise.runtime.window import Window
from fixed import CONTEXT, FIXED, FREE

TOKENS = np.random.default_rng(4).integers(4, 4096, CONTEXT).tolist()
TEXT = "def mean(values):\n    return"

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"search": "greedy"},
    "sample": {"search": {"name": "sample", "temperature": 0.8}, "seed": 7},
    "samples": {"search": "sample", "seed": 7, "n": 3},
    "beam": {"search": {"name": "beam", "num_beams": 3}},
    "speculate": {"search": "speculative"},
}


@pytest.fixture(scope="module", params=["free", "fixed"])
def path(request: pytest.FixtureRequest, pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo in float32, as in `float_runner`, with a cache that the runtime keeps."""
    path, target = tmp_path_factory.mktemp("appended") / "model.edge", FREE if request.param == "free" else FIXED
    target = replace(target, context=CONTEXT)
    return build(pycoder, target=target, output=path, recipe=Recipe(), load_check=False).path


@pytest.fixture(scope="module")
def runner(path: Path) -> Iterator[Runner]:
    with Runner.open(path, threads=1) as opened:
        yield opened


@pytest.mark.parametrize("length", [1, 3, 4, 126, 127, 128, 129, 130, 131, 255, 256, 257, 259, CONTEXT - 1])
def test_prompts_are_scored_as_by_a_graph_that_keeps_its_cache(
    runner: Runner, float_runner: Runner, length: int
) -> None:
    found, wanted = (Session(each.model, capacity=length) for each in (runner, float_runner))
    wanted_scores = wanted.prefill(TOKENS[:length]).copy()
    np.testing.assert_allclose(found.prefill(TOKENS[:length]), wanted_scores, rtol=0, atol=1e-4)
    for ours, theirs in zip(found.export(0, length), wanted.export(0, length), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_find_the_same(runner: Runner, float_runner: Runner, name: str) -> None:
    options = {"max_tokens": 24, **SEARCHES[name]}
    found, wanted = (each.generate(TEXT, **options) for each in (runner, float_runner))
    assert [each.tokens for each in found.completions] == [each.tokens for each in wanted.completions]


def test_a_search_that_reads_hidden_states_is_refused(runner: Runner) -> None:
    with pytest.raises(GenerationError, match="the bundle's graph gives none"):
        runner.generate(TEXT, search="contrastive", max_tokens=3)


def test_generations_at_once_are_what_each_is_alone(runner: Runner) -> None:
    prompts = [TEXT, TOKENS[:140], "class Stack:", TOKENS[:129]]
    alone = [runner.generate(prompt, max_tokens=9, search="greedy").tokens for prompt in prompts]
    together = runner.generate_batch(prompts, max_tokens=9, search="greedy", slots=3)
    assert [each.tokens for each in together] == alone


@pytest.mark.parametrize("length", [128, 129, 200, 256, 257])
def test_a_prompt_whose_beginning_is_known_gets_the_same(path: Path, runner: Runner, length: int) -> None:
    """To the bit where lengths are fixed; otherwise sums depend on how long the buffers are."""
    options: dict[str, Any] = {"max_tokens": 3, "logprobs": 5, "search": "greedy"}
    with Runner.open(path, threads=1, prefix_cache=0) as forgetful:
        wanted = forgetful.generate(TOKENS[:300], **options)
    with Runner.open(path, threads=1) as fresh:
        fresh.generate(TOKENS[:length], max_tokens=1)
        found = fresh.generate(TOKENS[:300], **options)
    assert found.tokens == wanted.tokens
    if runner.model.fixed:
        assert found.completions == wanted.completions
        length -= 1  # it was scored, by the graph that decodes
    assert found.timings.prompt_tokens_cached == length // 128 * 128


def test_prompts_and_sessions_are_kept_in_files(path: Path, runner: Runner, tmp_path: Path) -> None:
    expected = Session(runner.model, capacity=9).prefill(TOKENS[:200]).copy()
    session = Session(runner.model, capacity=9)
    session.prefill(TOKENS[:199], scores=0)
    session.save(tmp_path / "session")
    other = Session(runner.model, capacity=9)
    other.load(tmp_path / "session")
    np.testing.assert_allclose(other.decode(TOKENS[199]), expected, rtol=0, atol=1e-4)
    assert runner.save_prefix(TOKENS[:200], tmp_path / "prompt") == 128
    with Runner.open(path, threads=1) as fresh:
        assert fresh.load_prefix(tmp_path / "prompt") == 128
        assert fresh.generate(TOKENS[:200], max_tokens=1).timings.prompt_tokens_cached == 128


def test_a_window_forgets_the_same(runner: Runner, float_runner: Runner) -> None:
    """The context is full twice over; what stays is turned to where it is then."""
    in_place = copy(float_runner.model)
    in_place.context = CONTEXT
    sessions = [Session(model, capacity=9, window=Window(sinks=9)) for model in (runner.model, in_place)]
    for start in range(0, 2 * CONTEXT, 80):
        tokens = [*TOKENS, *TOKENS][start : start + 80]
        found, wanted = (session.prefill(tokens, scores=3).copy() for session in sessions)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)  # angles of float32 tables
    assert sessions[0].forgotten == sessions[1].forgotten > CONTEXT // 2


def test_texts_get_the_same_score(runner: Runner, float_runner: Runner) -> None:
    texts = [" sum(values)", " 0"]
    found, wanted = ([each.total for each in opened.scores(TEXT, texts)] for opened in (runner, float_runner))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_prompt_that_leaves_no_room_is_refused_and_told_what_the_graphs_were_compiled_for(runner: Runner) -> None:
    compiled = rf" \(the graphs of this bundle were compiled for {CONTEXT}; more take a build with --context\)"
    more = compiled if runner.model.fixed else " .*"
    with pytest.raises(
        ContextOverflow, match=rf"^the prompt has {CONTEXT} tokens, and the context is {CONTEXT}{more}:"
    ):
        runner.generate(TOKENS)
