"""tests: rows of a search: one token for each of many is one run, and none stands in another's way."""

import gc
from pathlib import Path

import numpy as np
import pytest

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
from rowed import LENGTHS, NEXT, TEXTS, alone, assert_close, rows_of, the_pool
from toy import CONTEXT, DYNAMIC, NAN, toy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return toy(tmp_path_factory.mktemp("toy"))


def runs(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each run of the graph has from now on."""
    counts: list[int] = []
    run = pool.run

    def counted(slots, *rest):  # type: ignore[no-untyped-def]
        counts.append(len(slots))
        run(slots, *rest)

    monkeypatch.setattr(pool, "run", counted)
    return counts


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
