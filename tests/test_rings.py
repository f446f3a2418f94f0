"""tests: a layer with a window keeps the last positions only: scores are those of a cache that keeps all of them."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fixed
import parity
import tiny
from edgewise import rings
from edgewise.errors import BundleError, GenerationError
from edgewise.runtime import ring
from edgewise.runtime.appended import MASKED, Bias, Step
from edgewise.runtime.model import Model
from edgewise.runtime.prefix import PrefixCache
from edgewise.runtime.rows import Rows
from edgewise.runtime.session import Session
from edgewise.runtime.window import Window
from edgewise.search.beam import Beam
from edgewise.search.greedy import Greedy
from edgewise.search.protocol import Context, Reply, Search
from edgewise.search.speculate import Speculative

CONTEXT, WIDTH, MARGIN, WINDOW = 256, 24, 24, 8
SLOTS = 64  # of a ring: no whole number of pieces of a prompt
BACK = SLOTS - WINDOW + 1  # as far as a session can go and have in its rings what it looks back on

FAMILIES = ["gemma2", "gemma3", "mistral", "phi3 window", "qwen2", "qwen3", "smollm3 window"]

TOKENS = np.random.default_rng(5).integers(3, tiny.VOCABULARY, CONTEXT).tolist()
OTHERS = np.random.default_rng(6).integers(3, tiny.VOCABULARY, CONTEXT).tolist()

Floats = NDArray[np.float32]


class Pair:
    """A model with rings, and the same one in floats, of any length, that keeps all positions in place."""

    def __init__(self, family: str, home: Path, folder: Path) -> None:
        canonical = parity.export(family, home)
        self.ringed = fixed.model("fixed", canonical, folder, context=CONTEXT, width=WIDTH, margin=MARGIN)
        self.whole = fixed.model("ort", canonical, folder, context=CONTEXT)

    def check(self, found: Floats, held: list[int]) -> None:
        """Scores of the last of these tokens; sums in float32 are in another order."""
        wanted = Session(self.whole, capacity=CONTEXT).prefill(held, scores=len(found))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.getbasetemp()
    return cache(lambda family: Pair(family, home, tmp_path_factory.mktemp("rings")))


@pytest.fixture(params=["gemma3", "mistral"])
def pair(request: pytest.FixtureRequest, pairs: Any) -> Pair:
    """Rings beside a layer that sees all, and rings only."""
    found: Pair = pairs(request.param)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_scores_over_several_turns_what_a_whole_cache_scores(pairs: Any, family: str) -> None:
    """Prompts whose pieces end within a ring, at its end and behind it, and tokens one by one between them."""
    pair: Pair = pairs(family)
    session, held = Session(pair.ringed, capacity=8), list[int]()
    for count, then in ((5, 3), (WIDTH + 1, 2), (SLOTS - 34, 1), (3 * WIDTH + 2, 9), (SLOTS + 30, 5)):
        new = TOKENS[len(held) : len(held) + count + then]
        held += new[:count]
        pair.check(session.prefill(new[:count], scores=min(count, 3)), held)
        for token in new[count:]:
            held.append(token)
            pair.check(session.decode(token), held)
    assert len(held) > 3.5 * SLOTS


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_writes_the_same_greedy_text_far_behind_its_rings(pairs: Any, family: str) -> None:
    pair: Pair = pairs(family)
    texts = []
    for model in (pair.ringed, pair.whole):
        session, text = Session(model, capacity=CONTEXT), list[int]()
        scores = session.prefill(TOKENS[:150])
        while len(text) < 40:
            text.append(int(scores[-1].argmax()))
            scores = session.decode(text[-1])
        texts.append(text)
    assert texts[0] == texts[1]


def test_only_layers_with_a_window_have_rings_and_the_facts_say_how_long_they_are(pair: Pair) -> None:
    facts, session = pair.ringed.facts, Session(pair.ringed, capacity=8)
    assert {a.ring for a in facts.attention if a.window} == {SLOTS}
    assert {a.ring for a in facts.attention if not a.window} <= {0}
    for spec, keys, values in zip(facts.attention, *(session.pool.buffers[i::2] for i in (0, 1)), strict=True):
        assert keys.shape == values.shape == (1, spec.kv_heads, spec.ring or CONTEXT, spec.head_dim)
    assert session.bytes == facts.cache_bytes(CONTEXT) < pair.whole.facts.cache_bytes(CONTEXT)
    assert session.capacity == CONTEXT
    assert facts.cache_bytes(10) == pair.whole.facts.cache_bytes(10)


@pytest.mark.parametrize("length", [1, WIDTH, WIDTH + 1, SLOTS - 1, SLOTS, SLOTS + 1, SLOTS + WIDTH, 129, 255, CONTEXT])
def test_prompts_of_any_length_score_the_same(pair: Pair, length: int) -> None:
    pair.check(Session(pair.ringed, capacity=8).prefill(TOKENS[:length]), TOKENS[:length])


@pytest.mark.parametrize("back", [1, 7, BACK - 1, BACK])
def test_a_session_goes_back_as_far_as_its_rings_remember_and_computes_nothing_again(pair: Pair, back: int) -> None:
    session = Session(pair.ringed, capacity=8)
    session.prefill(TOKENS[:200])
    session.rewind(200 - back)
    held = [*TOKENS[: 200 - back], *OTHERS[:5]]
    pair.check(session.prefill(OTHERS[:5], scores=5), held)
    assert session.slot.reached == max(200, 205 - back)


@pytest.mark.parametrize("length", [200 - BACK - 1, 100, 30, 3, 1])
def test_a_session_that_goes_back_further_computes_what_it_holds_again(pair: Pair, length: int) -> None:
    session = Session(pair.ringed, capacity=8)
    session.prefill(TOKENS[:200])
    session.rewind(length)
    assert session.tokens.tolist() == TOKENS[:length]
    pair.check(session.prefill(OTHERS[:5], scores=5), [*TOKENS[:length], *OTHERS[:5]])
    assert session.slot.reached == length + 5


def test_a_failure_while_it_computes_again_is_an_error_and_not_a_wrong_score(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(pair.ringed, capacity=8)
    session.prefill(TOKENS[:200])
    session.rewind(100)
    _fail_after(monkeypatch, 2)
    with pytest.raises(GenerationError, match="the device is gone"):
        session.decode(3)
    monkeypatch.undo()
    assert session.tokens.tolist() == TOKENS[:100]
    pair.check(session.decode(3), [*TOKENS[:100], 3])


@pytest.mark.parametrize("chunk", [WIDTH, 100])
def test_a_prompt_that_fails_half_way_leaves_what_was_there(
    pair: Pair, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of it have been written to the rings by then, in the place of what is needed."""
    session = Session(pair.ringed, capacity=8, chunk=chunk)
    session.prefill(TOKENS[:40])
    _fail_after(monkeypatch, 4)
    with pytest.raises(GenerationError, match="the device is gone"):
        session.prefill(OTHERS[:190])
    monkeypatch.undo()
    pair.check(session.prefill(OTHERS[:3], scores=3), [*TOKENS[:40], *OTHERS[:3]])


def _fail_after(monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    run, left = Step.run, iter(range(runs))

    def failing(step: Step, *arguments: Any) -> None:
        if next(left, None) is None:
            raise RuntimeError("the device is gone")
        run(step, *arguments)

    monkeypatch.setattr(Step, "run", failing)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_is_done_with_sessions_they_score_what_they_hold(
    pairs: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Appends in chunks of any length, rewinds, forks, copies and moves, in one pool that grows, and in others."""
    pair: Pair = pairs("gemma3")
    sessions = [Session(pair.ringed, capacity=4, chunk=data.draw(st.sampled_from([7, WIDTH, 100])))]
    for _ in range(data.draw(st.integers(2, 9))):
        session = data.draw(st.sampled_from(sessions))
        match data.draw(st.sampled_from(["append", "append", "rewind", "fork", "follow", "move"])):
            case "rewind":
                session.rewind(data.draw(st.integers(0, session.length)))
            case "fork" if len(sessions) < 4:
                pool = data.draw(st.sampled_from([session.pool, None]))
                sessions.append(session.fork(data.draw(st.integers(0, session.length)), pool=pool))
            case "follow":
                session.follow(data.draw(st.sampled_from(sessions)))
            case "move" if session.pool.free:
                session.pool.move(session.slot, min(session.pool.free, key=lambda slot: slot.index).index)
            case _:
                if count := data.draw(st.integers(0, CONTEXT - session.length)):
                    new = data.draw(st.sampled_from([TOKENS, OTHERS]))[:count]
                    held = [*session.tokens.tolist(), *new]
                    pair.check(session.prefill(new, scores=min(count, 2)), held)
                    assert session.tokens.tolist() == held
    for session in sessions:
        if 0 < session.length < CONTEXT:
            held = [*session.tokens.tolist(), TOKENS[0]]
            pair.check(session.decode(TOKENS[0]), held)


SEARCHES = [Greedy(), Beam(num_beams=4), Speculative(search=Greedy(), width=6)]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda each: each.name)
def test_searches_find_the_same(pair: Pair, search: Search) -> None:
    """A prompt that says the same three times, so that drafts are found, and taken back."""
    prompt = [*TOKENS[:50], *TOKENS[:50], *TOKENS[:50]]
    found, wanted = (_search(model, search, prompt, 30) for model in (pair.ringed, pair.whole))
    assert found == wanted


def _search(model: Model, search: Search, prompt: list[int], limit: int) -> list[tuple[int, ...]]:
    rows, written = Rows([model], capacity=CONTEXT), 0
    flow = search.flow(Context(tuple(prompt), limit, frozenset()))
    try:
        request = next(flow)
        while True:
            for place in request.release:
                rows.release(*place)
            written += sum(len(emit.tokens) for emit in request.emit)
            logits = rows.extend(request.extend)[0] if request.extend else ()
            request = flow.send(Reply(logits, None, frozenset({0} if written >= limit else ())))
    except StopIteration as end:
        return [sequence.tokens for sequence in end.value]


@pytest.mark.parametrize("length", [20, SLOTS - 10, 200])
def test_a_session_is_kept_in_a_file_with_what_it_needs_to_go_on(pair: Pair, length: int, tmp_path: Path) -> None:
    pair.ringed.computation = "a hash"
    session, other = Session(pair.ringed, capacity=8), Session(pair.ringed, capacity=8)
    session.prefill([*TOKENS[:length], *OTHERS[:20]])
    session.rewind(length)
    session.save(tmp_path / "session")
    held = 4 * sum(
        2 * a.kv_heads * a.head_dim * (WINDOW - 1 if a.ring else length) for a in pair.ringed.facts.attention
    )
    assert held <= (tmp_path / "session").stat().st_size <= held + 4096
    other.load(tmp_path / "session")
    pair.check(other.prefill(OTHERS[:4], scores=4), [*TOKENS[:length], *OTHERS[:4]])
    other.rewind(length - 2)
    pair.check(other.decode(7), [*TOKENS[: length - 2], 7])


def test_positions_that_a_ring_has_lost_are_not_exported(pair: Pair) -> None:
    session = Session(pair.ringed, capacity=8)
    session.prefill(TOKENS[:200])
    assert session.remembered == 200 - SLOTS
    assert session.export(200 - SLOTS, 200)[0].shape[1] == SLOTS
    with pytest.raises(GenerationError, match=rf"layers that look back a window keep those from {200 - SLOTS} on only"):
        session.export(200 - SLOTS - 1, 200)


def test_prompts_that_are_known_are_known_from_their_beginning_on(pair: Pair, tmp_path: Path) -> None:
    """Each block is taken while its ring has it, so that a prompt which goes on elsewhere finds the ones before."""
    pair.ringed.computation, pair.ringed.chunk = "a hash", WIDTH
    prefixes = PrefixCache(pair.ringed, limit=1 << 30)
    first = _known(pair.ringed, prefixes, TOKENS[:200])
    assert first.restored == 0
    for shared in (200, 100, 49):
        prompt = [*TOKENS[:shared], *OTHERS[:30]]
        append = _known(pair.ringed, prefixes, prompt)
        assert append.restored == shared // WIDTH * WIDTH
        pair.check(append.result(), prompt)
    assert prefixes.save(tmp_path / "prompt", TOKENS[:200]) == 192
    again = PrefixCache(pair.ringed, limit=1 << 30)
    assert again.load(tmp_path / "prompt") == 192
    append = _known(pair.ringed, again, TOKENS[:130])
    assert append.restored == 120
    pair.check(append.result(), TOKENS[:130])


def _known(model: Model, prefixes: PrefixCache, prompt: list[int]) -> Any:
    append = Session(model, capacity=8).append(prompt)
    append.prefixes = prefixes
    while not append.over:
        append.advance()
    return append


def test_a_prompt_cache_without_room_for_the_first_blocks_takes_no_later_ones(pair: Pair) -> None:
    pair.ringed.chunk = WIDTH
    block = pair.ringed.facts.cache_bytes(WIDTH)
    prefixes = PrefixCache(pair.ringed, limit=2 * block)
    _known(pair.ringed, prefixes, TOKENS[:200])
    assert prefixes.bytes == 2 * block
    assert prefixes.known(TOKENS[:200]) == 2 * WIDTH


@pytest.mark.parametrize("window", [Window(sinks=4), Window(sinks=9, drop=30), Window(sinks=2, drop=250)], ids=str)
def test_a_window_forgets_the_same(pair: Pair, window: Window) -> None:
    """The context is full twice over; what stays in a ring is turned to where it is then.

    Where next to nothing stays, rings no longer have what was first, and all of it is computed again: it carries
    nothing then of what was forgotten, and is compared with a session that never held that.
    """
    sessions = [Session(model, capacity=9, window=window) for model in (pair.ringed, pair.whole)]
    for start in range(0, 2 * CONTEXT, 80):
        tokens = [*TOKENS, *TOKENS][start : start + 80]
        found = sessions[0].prefill(tokens, scores=3)
        if window.drop == 250:
            pair.check(found, sessions[0].tokens.tolist())
        else:
            np.testing.assert_allclose(found, sessions[1].prefill(tokens, scores=3), rtol=0, atol=1e-3)
    assert sessions[0].forgotten > CONTEXT // 2


def test_a_context_that_is_no_longer_than_a_ring_has_none(tmp_path: Path, home: Path) -> None:
    model = fixed.model("fixed", parity.export("mistral", home), tmp_path, context=SLOTS, width=WIDTH, margin=MARGIN)
    assert {a.ring for a in model.facts.attention} == {0}
    assert not model.rings.sizes


def test_a_graph_whose_ring_is_not_that_of_the_facts_is_refused(tmp_path: Path, home: Path) -> None:
    canonical = parity.export("mistral", home)
    fixed.model("fixed", canonical, tmp_path, context=CONTEXT, width=WIDTH, margin=MARGIN)
    wrong = fixed.model("fixed", canonical, tmp_path / "..", context=CONTEXT - 64, width=WIDTH, margin=100).facts
    with pytest.raises(BundleError, match=r"has 64 positions, and the facts say 128; build the bundle again$"):
        Model(tmp_path / f"fixed-{CONTEXT}.onnx", wrong)


@pytest.mark.parametrize(
    ("window", "margin", "context", "slots"),
    [
        (None, 128, 4096, 0),
        (512, 128, 32768, 640),  # Gemma 3
        (2047, 128, 4096, 2176),  # Phi-3 mini
        (4096, 128, 32768, 4224),  # Mistral 7B 0.1
        (4096, 128, 4096, 0),
        (8, 24, 64, 0),
        (8, 24, 65, 64),
    ],
)
def test_a_ring_is_a_window_and_a_piece_of_a_prompt_in_whole_steps(
    window: int | None, margin: int, context: int, slots: int
) -> None:
    assert rings.slots(window, margin, context) == slots


@given(slots=st.integers(1, 9), start=st.integers(0, 40), count=st.integers(0, 20))
def test_what_is_put_into_a_ring_is_there_until_as_many_positions_came_after_it(
    slots: int, start: int, count: int
) -> None:
    buffer = np.full((2, slots, 1), -1.0, np.float32)
    positions = np.arange(start + count, dtype=np.float32)[None, :, None].repeat(2, axis=0)
    ring.put(buffer, 0, positions[:, :start])
    ring.put(buffer, start, positions[:, start:])
    first = max(0, start + count - slots)
    assert (ring.get(buffer, first, start + count) == positions[:, first:]).all()
    other = np.full_like(buffer, -1.0)
    ring.copy(other, buffer, first, start + count)
    assert (other == buffer).all()


@given(
    window=st.integers(1, 12),
    spare=st.integers(0, 5),
    width=st.integers(1, 9),
    lengths=st.lists(st.integers(0, 60), max_size=9),
)
def test_a_bias_shows_the_slots_of_a_ring_that_hold_what_a_token_looks_back_on(
    window: int, spare: int, width: int, lengths: list[int]
) -> None:
    slots = window + spare
    bias = Bias(window, width, slots)
    for length in lengths:
        bias.show(length)
        held = {position % slots: position for position in range(length)}  # the last one of each slot
        for token in range(width):
            for slot in range(slots):
                seen = slot in held and length + token - held[slot] < window
                assert bias.array[0, 0, token, slot] == (0 if seen else np.float32(MASKED))


@pytest.mark.parametrize(("family", "layers", "share"), [("gemma3", 3, "44%"), ("mistral", 4, "25%")])
def test_a_sentence_says_what_rings_save(pairs: Any, family: str, layers: int, share: str) -> None:
    assert rings.describe(pairs(family).ringed.facts, CONTEXT) == (
        f"{layers} of 4 layers look back 8 tokens and, as lengths are fixed, keep the last 64 in a ring: "
        f"the cache of 256 tokens takes {share} of what it would"
    )
