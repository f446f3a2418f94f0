"""tests: prompts that are kept in a file: the bundle that computed them reads them, and no other."""

import os
from pathlib import Path

import numpy as np
import pytest

from edgewise.bundle.manifest import CHUNK
from edgewise.bundle.read import Bundle
from edgewise.errors import CacheError, GenerationError, OptionError
from edgewise.pipeline import build
from edgewise.runtime.prefix import PrefixCache
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from toy import NAN, facts, toy

TOKENS = np.random.default_rng(3).integers(0, NAN, 100).tolist()
LONG = np.random.default_rng(5).integers(4, 4096, 3 * CHUNK).tolist()


def test_a_prompt_that_was_saved_is_not_computed_again(pycoder_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "prompt"
    with Runner.open(pycoder_bundle.path, threads=1) as runner:
        expected = runner.generate(LONG, max_tokens=9)
        assert runner.save_prefix(LONG[: 2 * CHUNK + 5], path) == 2 * CHUNK
    for context in (None, 1000):  # the tables of this model do not depend on it
        with Runner.open(pycoder_bundle.path, threads=1, context=context) as runner:
            assert runner.load_prefix(path) == 2 * CHUNK
            found = runner.generate(LONG, max_tokens=9)
            assert found.completions == expected.completions
            assert found.timings.prompt_tokens_cached == 2 * CHUNK


def test_a_prompt_is_computed_to_be_saved_and_then_known(pycoder_bundle: Bundle, tmp_path: Path) -> None:
    with Runner.open(pycoder_bundle.path, threads=1) as runner:
        for _ in range(2):
            assert runner.save_prefix(LONG[:CHUNK], tmp_path / "prompt") == CHUNK
        assert runner.generate(LONG, max_tokens=1).timings.prompt_tokens_cached == CHUNK


def test_a_prompt_of_less_than_a_block_is_not_saved(pycoder_bundle: Bundle, tmp_path: Path) -> None:
    with (
        Runner.open(pycoder_bundle.path, threads=1) as runner,
        pytest.raises(CacheError, match=rf"is not written: {CHUNK - 1} tokens are less than a block of {CHUNK}"),
    ):
        runner.save_prefix(LONG[: CHUNK - 1], tmp_path / "prompt")
    assert os.listdir(tmp_path) == []


def test_a_prompt_of_another_bundle_is_refused(pycoder_bundle: Bundle, two_graphs: Bundle, tmp_path: Path) -> None:
    with Runner.open(pycoder_bundle.path, threads=1) as runner:
        runner.save_prefix(LONG, tmp_path / "prompt")
    with (
        Runner.open(two_graphs.path, threads=1) as other,
        pytest.raises(CacheError, match="it was saved from another bundle"),
    ):
        other.load_prefix(tmp_path / "prompt")


def test_a_bundle_that_is_built_again_reads_what_the_first_saved(
    pycoder: Path, pycoder_bundle: Bundle, tmp_path: Path
) -> None:
    again = build(pycoder, output=tmp_path / "again.edge", measure=True)
    with Runner.open(pycoder_bundle.path, threads=1) as runner:
        runner.save_prefix(LONG, tmp_path / "prompt")
    with Runner.open(again.path, threads=1) as runner:
        assert runner.load_prefix(tmp_path / "prompt") == len(LONG)


def test_a_prompt_beyond_the_limit_and_the_file_of_a_session_are_refused(tmp_path: Path) -> None:
    model = toy(tmp_path, computation="toy")
    cache = PrefixCache(model, limit=1 << 20, block=16)
    assert cache.save(tmp_path / "prompt", TOKENS) == 96
    small = PrefixCache(model, limit=facts().cache_bytes(95), block=16)
    with pytest.raises(OptionError, match=r"takes 49,152 bytes of memory, and prefix_cache is 48,640"):
        small.load(tmp_path / "prompt")
    session = Session(model, capacity=20)
    session.prefill(TOKENS[:20])
    session.save(tmp_path / "session")
    with pytest.raises(CacheError, match="it is of a session; of use here are prompts, in blocks of 16 tokens"):
        cache.load(tmp_path / "session")


def test_a_closed_runner_has_no_prefixes(pycoder_bundle: Bundle, tmp_path: Path) -> None:
    runner = Runner.open(pycoder_bundle.path)
    runner.close()
    with pytest.raises(GenerationError, match=r"the runner of .* is closed"):
        runner.save_prefix(LONG, tmp_path / "prompt")
    with pytest.raises(GenerationError, match=r"the runner of .* is closed"):
        runner.load_prefix(tmp_path / "prompt")
