"""tests: generations that go on past the end of the context, in a window of attention sinks and the latest tokens."""

import itertools
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.errors import ContextOverflow, OptionError
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from edgewise.runtime.window import Window


@pytest.fixture(scope="module")
def runner(pycoder_bundle: Bundle) -> Iterator[Runner]:
    with Runner.open(pycoder_bundle.path, threads=1, context=128) as opened:
        yield opened


ENDLESS: dict[str, Any] = {"processors": [{"name": "min_length", "new_tokens": 10_000}], "search": "greedy"}


@pytest.mark.parametrize("overflow", ["window", {"name": "window", "sinks": 9, "drop": 50}, Window(drop=1)])
def test_until_the_context_is_full_nothing_is_different(runner: Runner, overflow: Any) -> None:
    expected = runner.generate("def read_json(", max_tokens=100)
    assert runner.generate("def read_json(", max_tokens=100, overflow=overflow).completions == expected.completions


def test_a_generation_goes_on_past_the_context_and_says_what_was_dropped(runner: Runner) -> None:
    with pytest.raises(ContextOverflow):
        runner.generate("def read_json(", max_tokens=300, **ENDLESS)
    result = runner.generate("def read_json(", max_tokens=300, overflow="window", **ENDLESS)
    prompt = result.timings.prompt_tokens
    assert (len(result.tokens), result.finish_reason) == (300, "length")
    assert result.timings.tokens_dropped == 16 * -(-(prompt + 299 - 128) // 16)
    assert result.timings.prompt_tokens_dropped == 0
    again = runner.generate("def read_json(", max_tokens=300, overflow="window", **ENDLESS)
    assert again.completions == result.completions


def test_of_a_prompt_longer_than_the_context_the_first_tokens_and_the_last_stay(runner: Runner) -> None:
    prompt = np.random.default_rng(5).integers(4, 4096, 300).tolist()
    window = Window(sinks=10, drop=28)
    found = runner.generate(prompt, max_tokens=20, overflow=window)
    expected = runner.generate(prompt[:10] + prompt[-90:], max_tokens=20)
    assert found.completions == expected.completions
    timings = found.timings
    assert (timings.prompt_tokens, timings.prompt_tokens_dropped, timings.tokens_dropped) == (300, 200, 0)
    with pytest.raises(ContextOverflow):
        runner.generate(prompt, max_tokens=20)


@pytest.mark.parametrize("length", [127, 128, 129])
def test_a_prompt_that_leaves_room_for_a_token_is_whole(runner: Runner, length: int) -> None:
    prompt = np.random.default_rng(5).integers(4, 4096, length).tolist()
    timings = runner.generate(prompt, max_tokens=3, overflow="window").timings
    assert timings.prompt_tokens_dropped == (0 if length < 128 else length - 112)


@pytest.mark.parametrize(
    "options", [{"search": "beam"}, {"search": "beam_groups"}, {"search": "sample", "n": 3}, {"search": "guided"}]
)
def test_searches_that_fork_and_go_back_go_on_past_the_context(runner: Runner, options: dict[str, Any]) -> None:
    result = runner.generate("x = 1\n" * 20, max_tokens=150, overflow="window", seed=1, **{**ENDLESS, **options})
    assert all(len(completion.tokens) == 150 for completion in result.completions)
    assert result.timings.tokens_dropped > 0


def test_generations_that_share_runs_forget_each_on_their_own(runner: Runner) -> None:
    prompts = ["x = 1\n" * 30, "def read_json(", "import os\n" * 9]
    options: dict[str, Any] = {"max_tokens": 120, "overflow": "window", "seed": 1, **ENDLESS}
    alone = [runner.generate(prompt, **options) for prompt in prompts]
    together = runner.generate_batch(prompts, **options)
    assert [result.completions for result in together] == [result.completions for result in alone]
    assert [result.timings.tokens_dropped for result in together] == [each.timings.tokens_dropped for each in alone]
    assert len({result.timings.tokens_dropped for result in together}) == 3


def test_speculation_and_a_window_are_refused_together(runner: Runner) -> None:
    with pytest.raises(OptionError, match="'speculative' takes drafts back, and overflow 'window' forgets tokens"):
        runner.generate("x = 1", search="speculative", overflow="window")


def test_a_text_is_as_probable_in_a_window_as_after_the_text_before_it(runner: Runner, pycoder: Path) -> None:
    tokens = runner.tokenizer.encode((pycoder / "heldout.txt").read_text()[:4000])[:700]
    windowed = Session(runner.model, capacity=128, window=Window())
    recomputed = Session(runner.model, capacity=128)
    losses = []
    for place, (token, following) in enumerate(itertools.pairwise(tokens)):
        scores = [windowed.decode(token)[0]]
        if place >= 128 and place % 4 == 0:
            recomputed.rewind(0)
            scores.append(recomputed.prefill(tokens[place - 119 : place + 1])[0])
            losses.append([np.logaddexp.reduce(row.astype(np.float64)) - row[following] for row in scores])
    in_window, after_text = np.mean(losses, axis=0)
    assert in_window == pytest.approx(after_text, rel=0.03)


@pytest.mark.slow
def test_five_thousand_tokens_take_the_memory_of_a_thousand(pycoder_bundle: Bundle) -> None:
    with Runner.open(pycoder_bundle.path) as runner:
        stream = runner.stream("def read_json(", max_tokens=5000, overflow="window", **ENDLESS)
        held = []
        for number, _ in enumerate(stream):
            if number in (1200, 4999):
                held.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        result = stream.result()
    assert (len(result.tokens), result.timings.tokens_dropped) == (5000, 4096)
    assert held[1] - held[0] < 4 << 10  # KiB
