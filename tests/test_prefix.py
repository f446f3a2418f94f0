"""tests: the cache of prefixes: what prompts have in common is computed once, and nothing else changes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.errors import OptionError
from edgewise.runtime.model import Model
from edgewise.runtime.prefix import LIMIT, PrefixCache
from edgewise.runtime.rows import Rows
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from edgewise.search.protocol import Extend
from toy import NAN, facts, toy

BLOCK = 16
RANDOM = np.random.default_rng(3)
TOKENS = RANDOM.integers(0, NAN, 200).tolist()
OTHERS = RANDOM.integers(0, NAN, 200).tolist()
BLOCK_BYTES = facts().cache_bytes(BLOCK)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def cache(model: Model) -> PrefixCache:
    return PrefixCache(model, limit=1 << 20, block=BLOCK)


def session(model: Model, tokens: list[int] | None = None, chunk: int = BLOCK) -> Session:
    made = Session(model, capacity=200, chunk=chunk)
    if tokens:
        made.prefill(tokens)
    return made


def known(cache: PrefixCache, tokens: list[int]) -> int:
    return cache.restore(session(cache.model), tokens)


@pytest.mark.parametrize(
    ("length", "common", "expected"),
    [(60, 60, 48), (60, 48, 48), (60, 47, 32), (48, 48, 32), (49, 49, 48), (17, 17, 16), (16, 16, 0), (60, 0, 0)],
)
def test_whole_blocks_in_common_are_known_and_never_the_last_token(
    cache: PrefixCache, model: Model, length: int, common: int, expected: int
) -> None:
    cache.store(session(model, TOKENS[:100]))
    assert known(cache, TOKENS[:common] + OTHERS[: length - common]) == expected


def test_a_block_is_known_only_after_the_blocks_before_it(cache: PrefixCache, model: Model) -> None:
    cache.store(session(model, TOKENS[:48]))
    assert known(cache, OTHERS[:16] + TOKENS[16:48]) == 0
    assert known(cache, TOKENS[16:48]) == 0


def test_what_is_restored_and_computed_after_it_is_what_is_computed_without(cache: PrefixCache, model: Model) -> None:
    cache.store(session(model, TOKENS[:70]))
    for length in (65, 66, 80, 120):
        found, expected = session(model), session(model)
        restored = cache.restore(found, TOKENS[:length])
        assert restored == 64
        np.testing.assert_array_equal(found.prefill(TOKENS[restored:length]), expected.prefill(TOKENS[:length]))
        for ours, theirs in zip(found.export(0, length), expected.export(0, length), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_the_memory_stays_under_the_limit_and_what_was_used_last_stays(model: Model) -> None:
    cache = PrefixCache(model, limit=4 * BLOCK_BYTES, block=BLOCK)
    for start in (0, 40, 80):
        cache.store(session(model, TOKENS[start : start + 33]))
        assert cache.bytes <= cache.limit
        known(cache, TOKENS[:33])
    assert [known(cache, TOKENS[start : start + 33]) for start in (0, 40, 80)] == [32, 0, 32]


def test_of_a_prompt_the_last_blocks_go_first(model: Model) -> None:
    cache = PrefixCache(model, limit=4 * BLOCK_BYTES, block=BLOCK)
    cache.store(session(model, TOKENS[:49]))
    cache.store(session(model, OTHERS[:33]))
    assert (known(cache, TOKENS[:49]), known(cache, OTHERS[:33])) == (32, 32)


def test_of_a_prompt_beyond_the_limit_the_beginning_is_kept(model: Model) -> None:
    cache = PrefixCache(model, limit=3 * BLOCK_BYTES - 1, block=BLOCK)
    cache.store(session(model, TOKENS[:100]))
    assert (known(cache, TOKENS), cache.bytes) == (32, 2 * BLOCK_BYTES)


def test_no_limit_to_speak_of_keeps_nothing(model: Model) -> None:
    cache = PrefixCache(model, limit=0, block=BLOCK)
    cache.store(session(model, TOKENS[:100]))
    assert (known(cache, TOKENS), cache.bytes) == (0, 0)
    with pytest.raises(OptionError, match="prefix_cache is -1; it must be a number of bytes, 0 for none"):
        PrefixCache(model, limit=-1)


def test_sessions_of_another_model_and_of_other_chunks_are_not_served(
    cache: PrefixCache, model: Model, tmp_path: Path
) -> None:
    cache.store(session(toy(tmp_path), TOKENS[:48]))
    cache.store(session(model, TOKENS[:48], chunk=8))
    assert cache.bytes == 0
    cache.store(session(model, TOKENS[:48]))
    for other in (session(toy(tmp_path)), session(model, chunk=8)):
        assert cache.restore(other, TOKENS[:48]) == 0


def test_what_a_session_does_later_changes_no_block(cache: PrefixCache, model: Model) -> None:
    origin = session(model, TOKENS[:48])
    cache.store(origin)
    origin.rewind(0)
    origin.prefill(OTHERS[:48])
    found = session(model)
    cache.restore(found, TOKENS[:48])
    for ours, theirs in zip(found.export(0, 32), session(model, TOKENS[:48]).export(0, 32), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_rows_compute_what_is_not_known_and_all_that_is_scored(cache: PrefixCache, model: Model) -> None:
    tokens = tuple(TOKENS[:60])
    expected = session(model).prefill(tokens, scores=20).copy()
    for restored in (0, 32):  # the positions from 40 on are scored
        rows = Rows((model,), capacity=60, prefixes=(cache,), chunk=cache.block)
        (scores,), _ = rows.extend([Extend(0, tokens, None, scores=20)])
        np.testing.assert_array_equal(scores, expected)
        assert rows.restored == restored


def test_a_block_that_goes_while_another_is_copied_is_missed_by_nobody(model: Model) -> None:
    cache = PrefixCache(model, limit=3 * BLOCK_BYTES, block=BLOCK)
    cache.store(session(model, TOKENS[:BLOCK]))
    longer = session(model, TOKENS[: 2 * BLOCK])

    def export(start: int, stop: int) -> list[Any]:
        cache.store(session(model, OTHERS[: 3 * BLOCK]))  # as another thread might
        return longer.export(start, stop)

    cache.add(TOKENS[: 2 * BLOCK], export)
    assert known(cache, TOKENS[: 2 * BLOCK + 1]) == 0
    assert cache.bytes <= cache.limit
    cache.store(longer)
    assert known(cache, TOKENS[: 2 * BLOCK + 1]) == 2 * BLOCK


def test_threads_share_it(model: Model) -> None:
    cache = PrefixCache(model, limit=5 * BLOCK_BYTES, block=BLOCK)
    prompts = [TOKENS[:20] + OTHERS[start : start + 40] for start in range(6)]
    expected = [session(model).prefill(prompt).copy() for prompt in prompts]
    wrong: list[int] = []

    def run(number: int) -> None:
        for turn in range(20):
            which = (number + turn) % len(prompts)
            mine = session(model)
            scores = mine.prefill(prompts[which][cache.restore(mine, prompts[which]) :])
            cache.store(mine)
            if not np.array_equal(scores, expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 0 < cache.bytes <= cache.limit


# In a runner.


@pytest.fixture(scope="module", params=["one graph", "two graphs"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    found: Bundle = request.getfixturevalue("pycoder_bundle" if request.param == "one graph" else "two_graphs")
    return found


@pytest.fixture
def runners(bundle: Bundle) -> Iterator[tuple[Runner, Runner]]:
    """With a cache of prefixes, and without."""
    with Runner.open(bundle.path, threads=1) as cached, Runner.open(bundle.path, threads=1, prefix_cache=0) as plain:
        yield cached, plain


@pytest.fixture
def chunk(bundle: Bundle) -> int:
    return bundle.manifest.chunk


LONG = np.random.default_rng(5).integers(4, 4096, 800).tolist()


@pytest.mark.parametrize("options", [{}, {"search": "sample", "seed": 4, "n": 2}])
def test_an_answer_is_the_same_with_and_without(
    runners: tuple[Runner, Runner], chunk: int, options: dict[str, Any]
) -> None:
    cached, plain = runners
    cached.generate(LONG[: 2 * chunk + 7], max_tokens=1)
    for length in (2 * chunk + 1, 2 * chunk + 2, 2 * chunk + 40, 3 * chunk):
        found, expected = (each.generate(LONG[:length], max_tokens=16, **options) for each in (cached, plain))
        assert found.completions == expected.completions
        assert (found.timings.prompt_tokens_cached, expected.timings.prompt_tokens_cached) == (2 * chunk, 0)


def test_a_conversation_computes_what_is_new(runners: tuple[Runner, Runner], chunk: int) -> None:
    cached, plain = runners
    history, seen = LONG[: chunk + 20], []
    for _ in range(3):
        found, expected = (each.generate(history, max_tokens=40) for each in (cached, plain))
        assert found.tokens == expected.tokens
        seen.append(found.timings.prompt_tokens_cached)
        history = [*history, *found.tokens, *LONG[:60]]
    assert seen == [0, chunk, chunk]


def test_a_cancelled_generation_leaves_its_prompt(runners: tuple[Runner, Runner], chunk: int) -> None:
    cached, _ = runners
    stream = cached.stream(LONG[: chunk + 1], max_tokens=9)
    next(stream)
    stream.close()
    assert cached.generate(LONG[: chunk + 1], max_tokens=1).timings.prompt_tokens_cached == chunk


def test_rates_are_of_what_was_computed(runners: tuple[Runner, Runner], chunk: int) -> None:
    cached, _ = runners
    for _ in range(2):
        timings = cached.generate(LONG[: chunk + 9], max_tokens=1).timings
    assert timings.time_to_first_token_s is not None
    assert timings.prefill_tokens_per_s == 9 / timings.time_to_first_token_s
    assert timings.prompt_tokens == chunk + 9


def test_a_prompt_is_prepared_before_it_is_asked_for(runners: tuple[Runner, Runner], chunk: int) -> None:
    cached, plain = runners
    assert [cached.prepare(LONG[:length]) for length in (chunk - 1, chunk + 5, 2 * chunk)] == [0, chunk, 2 * chunk]
    found, expected = (each.generate(LONG, max_tokens=9) for each in (cached, plain))
    assert found.completions == expected.completions
    assert found.timings.prompt_tokens_cached == 2 * chunk


def test_a_preparation_that_is_stopped_leaves_what_it_has_computed(bundle: Bundle, chunk: int) -> None:
    class After(Event):
        """Set when it has been asked so often."""

        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 2

    with Runner.open(bundle.path, threads=1) as runner:
        assert runner.prepare(LONG, stop=After()) == 2 * chunk
        assert runner.generate(LONG, max_tokens=1).timings.prompt_tokens_cached == 2 * chunk


def test_the_prompt_of_a_draft_is_known_as_well(runners: tuple[Runner, Runner], chunk: int) -> None:
    cached, plain = runners
    options: dict[str, Any] = {"search": "speculative", "max_tokens": 12}
    expected = plain.generate(LONG[: chunk + 9], assistants=[plain], **options)
    for _ in range(2):
        assert cached.generate(LONG[: chunk + 9], assistants=[cached], **options).completions == expected.completions
    assert cached._known().bytes == cached.facts.cache_bytes(chunk)


def test_by_default_there_is_one(bundle: Bundle) -> None:
    with Runner.open(bundle.path) as runner:
        assert runner._prefixes is not None
        assert runner._prefixes.limit == LIMIT
