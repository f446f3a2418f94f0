"""tests: rows of a search: one token for each of many is one run, and rows that change places copy what differs."""

import gc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import ContextOverflow, GenerationError
from edgewise.pipeline import build
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.batch import Append, decode
from edgewise.runtime.model import Model
from edgewise.runtime.pool import Pool
from edgewise.runtime.rows import Rows
from edgewise.runtime.session import Session
from edgewise.search.protocol import Extend
from toy import CONTEXT, DYNAMIC, NAN, facts, toy

Floats = NDArray[np.float32]

RANDOM = np.random.default_rng(3)
LENGTHS = (5, 40, 1, 33, 20)
TEXTS = [tuple(RANDOM.integers(0, NAN, length).tolist()) for length in LENGTHS]
NEXT = RANDOM.integers(0, NAN, (20, len(LENGTHS)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return toy(tmp_path_factory.mktemp("toy"))


def rows_of(model: Model, texts: list[tuple[int, ...]], capacity: int = 80) -> Rows:
    """Row i holds text i."""
    rows = Rows((model,), capacity=capacity)
    rows.extend([Extend(row, text, None) for row, text in enumerate(texts)])
    return rows


def alone(model: Model, tokens: tuple[int, ...]) -> Floats:
    scores: Floats = Session(model, capacity=len(tokens)).prefill(tokens)[-1]
    return scores


def assert_close(found: Floats, expected: Floats) -> None:
    """Float32 sums in another order; scores here reach 100."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1, float(np.abs(expected).max())))


def the_pool(rows: Rows) -> Pool:
    (pool,) = rows._pools.values()
    return pool


def runs(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each run of the graph has from now on."""
    counts: list[int] = []
    run = pool.run

    def counted(slots, *rest):  # type: ignore[no-untyped-def]
        counts.append(len(slots))
        run(slots, *rest)

    monkeypatch.setattr(pool, "run", counted)
    return counts


# One run for many rows.


@pytest.mark.parametrize("table", ["fixed", "of the context"])
def test_single_tokens_of_rows_of_any_length_are_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    model = toy(tmp_path, rotary=DYNAMIC, context=128) if table == "of the context" else toy(tmp_path)
    rows, texts = rows_of(model, TEXTS), list(TEXTS)
    counts = runs(the_pool(rows), monkeypatch)
    for tokens in NEXT.tolist():
        logits, _ = rows.extend([Extend(row, (token,), row) for row, token in enumerate(tokens)])
        texts = [(*text, token) for text, token in zip(texts, tokens, strict=True)]
        for found, text in zip(logits, texts, strict=True):
            assert_close(found[0], alone(model, text))
    assert counts == [len(TEXTS)] * len(NEXT)


def test_rows_that_begin_with_one_token_are_one_run_too(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows((model,), capacity=9)
    rows.extend([Extend(7, (1, 2, 3), None)])
    counts = runs(the_pool(rows), monkeypatch)
    logits, _ = rows.extend([Extend(0, (4,), None), Extend(7, (5,), 7), Extend(1, (6,), None)])
    for found, text in zip(logits, ((4,), (1, 2, 3, 5), (6,)), strict=True):
        assert_close(found[0], alone(model, text))
    assert counts == [3]


def test_a_row_that_is_not_asked_for_is_left_out_and_a_place_that_is_free_is_taken(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(model, TEXTS)
    counts = runs(the_pool(rows), monkeypatch)
    logits, _ = rows.extend([Extend(row, (9,), row) for row in (4, 0, 2, 3)])  # row 1 lies between them
    for found, row in zip(logits, (4, 0, 2, 3), strict=True):
        assert_close(found[0], alone(model, (*TEXTS[row], 9)))
    assert sorted(counts) == [1, 3]
    rows.release(0, 1)
    rows.extend([Extend(row, (8,), row) for row in (4, 0, 2, 3)])
    assert counts[2:] == [4]
    logits, _ = rows.extend([Extend(4, (7,), 4)])
    assert_close(logits[0][0], alone(model, (*TEXTS[4], 9, 8, 7)))


def test_long_and_short_appends_come_in_one_request(model: Model) -> None:
    rows = rows_of(model, TEXTS)
    wanted = [(0, (1,)), (1, (2, 3, 4)), (2, (5,)), (3, (6,)), (4, (7, 8))]
    logits, _ = rows.extend([Extend(row, new, row, scores=len(new)) for row, new in wanted])
    for found, (row, new) in zip(logits, wanted, strict=True):
        assert len(found) == len(new)
        assert_close(found[-1], alone(model, TEXTS[row] + new))


def test_floats_score_beside_others_what_they_score_alone(pycoder: Path, tmp_path: Path) -> None:
    bundle = build(pycoder, output=tmp_path / "floats.edge", recipe=Recipe(()))
    assert difference(Model.load(bundle.path, bundle.manifest, threads=1)) < 1e-4


def test_products_in_few_bits_differ_by_no_more_than_the_rounding_of_activations(pycoder_bundle: Bundle) -> None:
    """Two rows are multiplied at once there; a last bit of a sum may turn the rounding of an activation to int8."""
    assert difference(Model.load(pycoder_bundle.path, pycoder_bundle.manifest, threads=1)) < 0.2


def test_a_cache_in_int8_is_batched_like_any_other(pycoder: Path, tmp_path: Path) -> None:
    recipe = Recipe((RecipeStep("quantize-cache", {}),))
    text = CalibrationText(pycoder / "heldout.txt", tokens=1024)
    bundle = build(pycoder, output=tmp_path / "int8.edge", recipe=recipe, calibration=text)
    assert difference(Model.load(bundle.path, bundle.manifest, threads=1)) < 0.2


def difference(model: Model) -> float:
    """Between rows of a batch and sessions of their own, at most, over some steps; scores reach 10."""
    texts = TEXTS[:4]
    rows, sessions = rows_of(model, texts), [Session(model, capacity=60) for _ in texts]
    for session, text in zip(sessions, texts, strict=True):
        session.prefill(text)
    found = 0.0
    for tokens in NEXT[:5].tolist():
        logits, _ = rows.extend([Extend(row, (tokens[row],), row) for row in range(4)])
        for scores, session, token in zip(logits, sessions, tokens, strict=False):
            found = max(found, float(np.abs(scores - session.decode(token)).max()))
    return found


# What goes wrong in one row.


def test_a_row_without_finite_scores_fails_and_leaves_the_others_alone(model: Model) -> None:
    pool = Pool(model, capacity=60)
    sessions = [Session(model, capacity=60, pool=pool) for _ in range(3)]
    for session, text in zip(sessions, TEXTS, strict=False):
        session.prefill(text)
    for bad in (NAN, 9):  # and it goes on as if nothing had been
        appends = [session.append((token,)) for session, token in zip(sessions, (7, bad, 8), strict=True)]
        decode(appends)
        assert [append.problem is None for append in appends] == [True, bad != NAN, True]
        assert [session.length for session in sessions][1] == LENGTHS[1] + (bad != NAN)
    for session, added in zip(sessions, ((7, 7), (9,), (8, 8)), strict=True):
        assert_close(session.decode(3)[0], alone(model, (*TEXTS[sessions.index(session)], *added, 3)))


def test_a_run_that_fails_is_done_again_row_by_row(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(model, capacity=60)
    sessions = [Session(model, capacity=60, pool=pool) for _ in range(3)]
    run = pool.run

    def failing(slots, *rest):  # type: ignore[no-untyped-def]
        if sessions[1].slot in slots:
            raise RuntimeError("no memory\nat all")
        run(slots, *rest)

    monkeypatch.setattr(pool, "run", failing)
    appends = [session.append((token,)) for session, token in zip(sessions, (5, 6, 7), strict=True)]
    decode(appends)
    with pytest.raises(GenerationError, match="ONNX Runtime failed after 0 tokens: no memory"):
        appends[1].result()
    assert [session.tokens.tolist() for session in sessions] == [[5], [], [7]]
    assert_close(appends[2].result()[0], alone(model, (7,)))


def test_more_than_the_context_fails_before_anything_is_computed(model: Model) -> None:
    rows = rows_of(model, [(1,) * CONTEXT, (2, 3)], capacity=CONTEXT)
    with pytest.raises(ContextOverflow, match=f"{CONTEXT + 1} tokens do not fit"):
        rows.extend([Extend(1, (4,), 1), Extend(0, (5,), 0)])
    logits, _ = rows.extend([Extend(1, (4,), 1)])
    assert_close(logits[0][0], alone(model, (2, 3, 4)))


def test_a_row_cannot_be_extended_twice_at_once(model: Model) -> None:
    with pytest.raises(GenerationError, match="extends one row twice"):
        rows_of(model, TEXTS).extend([Extend(0, (1,), 0), Extend(0, (2,), 1)])


# Rows that change places.


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


def test_slots_and_their_length_grow_with_what_is_in_them(model: Model) -> None:
    rows = Rows((model,), capacity=8)
    rows.extend([Extend(0, TEXTS[0], None)])
    for row in range(1, 6):
        rows.extend([Extend(row, (row,), row - 1)])
    pool = the_pool(rows)
    assert (len(pool.slots), pool.capacity) == (8, 16)
    logits, _ = rows.extend([Extend(row, (9,), row) for row in range(6)])
    for row, found in enumerate(logits):
        assert_close(found[0], alone(model, (*TEXTS[0], *range(1, row + 1), 9)))


def test_a_generation_gives_its_slots_back(model: Model) -> None:
    pools: dict[Model, Pool] = {}
    first, second = (Rows((model,), capacity=60, pools=pools) for _ in range(2))
    first.extend([Extend(row, text, None) for row, text in enumerate(TEXTS)])
    second.extend([Extend(0, TEXTS[0], None)])
    first.close()
    pool = pools[model]
    assert len(pool.free) == len(pool.slots) - 1
    logits, _ = second.extend([Extend(0, (9,), 0)])
    assert_close(logits[0][0], alone(model, (*TEXTS[0], 9)))


def test_what_fails_on_the_way_loses_no_slot(model: Model) -> None:
    rows = rows_of(model, TEXTS)
    for wrong in (Extend(9, (1,), 77), Extend(9, (1,), None, model=1), Extend(0, (1,), 1, length=99)):
        with pytest.raises(GenerationError):
            rows.extend([Extend(1, (2,), 0), wrong])
    rows.close()
    pool = the_pool(rows)
    gc.collect()
    assert len(pool.free) == len(pool.slots)


def test_an_append_that_is_given_up_leaves_the_session_as_it_was(model: Model) -> None:
    session = Session(model, capacity=60, chunk=8)
    session.prefill(TEXTS[0])
    append: Append = session.append(TEXTS[1])
    append.advance()
    assert session.length == LENGTHS[0] + 8
    append.fail(GenerationError("enough"))
    assert session.tokens.tolist() == list(TEXTS[0])


@pytest.mark.parametrize("seed", range(6))
def test_any_requests_of_several_searches_in_one_pool_score_what_each_row_scores_alone(model: Model, seed: int) -> None:
    """Forks, rewinds, releases, drafts and new prompts, in any order: a row is always the text that it stands for."""
    random, pools = np.random.default_rng(seed), dict[Model, Pool]()
    searches = [Rows((model,), capacity=16, pools=pools) for _ in range(3)]
    texts: list[dict[int, tuple[int, ...]]] = [{} for _ in searches]
    for _ in range(60):
        which = int(random.integers(len(searches)))
        rows, held = searches[which], texts[which]
        for row in [row for row in held if random.random() < 0.15]:
            rows.release(0, row)
            del held[row]
        extends = [any_extend(row, held, random) for row in range(5) if random.random() < 0.6]
        if not extends:
            continue
        logits, _ = rows.extend(extends)
        before = dict(held)
        for extend, found in zip(extends, logits, strict=True):
            parent = () if extend.parent is None else before[extend.parent]
            kept = parent if extend.length < 0 else parent[: extend.length]
            held[extend.row] = kept + extend.tokens
            assert_close(found[-1], alone(model, held[extend.row]))
    for rows in searches:
        rows.close()
    assert len(pools[model].free) == len(pools[model].slots)


def any_extend(row: int, held: dict[int, tuple[int, ...]], random: np.random.Generator) -> Extend:
    parent = int(random.choice(list(held))) if held and random.random() < 0.85 else None
    if row in held and random.random() < 0.5:
        parent = row
    count = 1 if random.random() < 0.7 else int(random.integers(2, 12))
    tokens = tuple(random.integers(0, NAN, count).tolist())
    length = -1
    if parent is not None and random.random() < 0.3:
        length = int(random.integers(0, len(held[parent]) + 1))
    if parent is not None and len(held[parent]) + count > 200:
        parent, length = None, -1
    return Extend(row, tokens, parent, length=length, scores=int(random.integers(1, count + 1)))
