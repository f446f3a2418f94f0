"""tests: rows of a search that change places or go on from another one copy what differs, and no more."""

import numpy as np
import pytest

from edgewise.runtime.model import Model
from edgewise.runtime.rows import Rows
from edgewise.search.protocol import Extend
from rowed import LENGTHS, NEXT, TEXTS, alone, assert_close, rows_of, the_pool
from toy import facts, toy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return toy(tmp_path_factory.mktemp("toy"))


def test_rows_that_change_places_keep_their_caches_and_copy_nothing(model: Model) -> None:
    rows = rows_of(model, TEXTS[:3])
    logits, _ = rows.extend([Extend(0, (1,), 1), Extend(1, (2,), 2), Extend(2, (3,), 0)])
    for found, text in zip(logits, ((*TEXTS[1], 1), (*TEXTS[2], 2), (*TEXTS[0], 3)), strict=True):
        assert_close(found[0], alone(model, text))
    assert the_pool(rows).copied == 0


def test_rows_that_go_on_in_place_copy_nothing(model: Model) -> None:
    rows = rows_of(model, TEXTS)
    for tokens in NEXT.tolist():
        rows.extend([Extend(row, (token,), row) for row, token in enumerate(tokens)])
    rows.extend([Extend(1, (3,), 1, length=4)])
    assert the_pool(rows).copied == 0


def test_a_fork_is_one_copy_of_what_is_kept(model: Model) -> None:
    rows = rows_of(model, [TEXTS[1]])
    rows.extend([Extend(1, (3,), 0, length=30)])
    assert the_pool(rows).copied == facts().cache_bytes(30)


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_copies_only_what_came_after_the_common_ancestor(model: Model, seed: int) -> None:
    """Rows pick any parents: each ends up with the right cache, in the memory there was, for few bytes."""
    random, width = np.random.default_rng(seed), 4
    rows, prompt = Rows((model,), capacity=80), TEXTS[1]
    rows.extend([Extend(0, prompt, None)])
    rows.extend([Extend(row, (row,), 0) for row in range(width)])
    pool, texts = the_pool(rows), [(*prompt, row) for row in range(width)]
    assert pool.copied == (width - 1) * facts().cache_bytes(len(prompt))
    memory, bound, whole = pool.bytes, pool.copied, 0
    for step in range(25):
        parents = random.integers(0, width, width).tolist()
        bound += sum(apart(texts, parents)) * facts().cache_bytes(1)
        whole += (width - len(set(parents))) * facts().cache_bytes(len(texts[0]))
        texts = [(*texts[parent], 9 * row + step % 9) for row, parent in enumerate(parents)]
        logits, _ = rows.extend([Extend(row, text[-1:], parents[row]) for row, text in enumerate(texts)])
        for found, text in zip(logits, texts, strict=True):
            assert_close(found[0], alone(model, text))
    assert pool.copied <= bound < whole / 2
    assert pool.bytes == memory


def apart(texts: list[tuple[int, ...]], parents: list[int]) -> list[int]:
    """Tokens that each row which is not the first child of its parent has to have copied, at most."""
    lost = [row for row in range(len(texts)) if row not in parents]
    again = [parent for place, parent in enumerate(parents) if parent in parents[:place]]
    return [len(texts[parent]) - min(common(texts[parent], texts[row]) for row in lost) for parent in again]


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_the_same_tokens_by_another_computation_are_not_taken_for_a_common_ancestor(model: Model) -> None:
    """They may differ in their last bits."""
    rows = Rows((model,), capacity=60)
    rows.extend([Extend(0, TEXTS[1], None), Extend(1, TEXTS[1], None)])
    rows.extend([Extend(1, (3,), 0)])
    assert the_pool(rows).copied == facts().cache_bytes(LENGTHS[1])
