"""tests: a scheduler: many generations at once say what each of them says alone, and none stands in another's way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgewise.bundle.read import Bundle
from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.runtime.pool import Pool
from edgewise.runtime.runner import Runner
from edgewise.runtime.scheduler import Generation, Scheduler
from edgewise.runtime.stream import Stream
from edgewise.search.protocol import Context, Emit, Extend, Flow, Request, Search
from scheduled import endless, held, pool_of
from toy import CONTEXT, NAN

PROMPTS = [
    "def add(a, b):\n    return",
    "class Stack:\n",
    "import os\n\n\ndef main():\n    ",
    "x",
    "for i in range(10):\n",
]
GREEDY: dict[str, Any] = {"search": "greedy", "max_tokens": 24}


@pytest.fixture
def runner(float_runner: Runner) -> Runner:
    """In floats: there a row's scores are the same beside others and alone."""
    return float_runner


@pytest.fixture
def toy_runner(tmp_path: Path, float_runner: Runner) -> Runner:
    return endless(tmp_path, float_runner)


def waiting(stream: Stream) -> int:
    """Tokens that can be read."""
    assert isinstance(stream._pieces, Generation)
    return sum(len(piece.tokens) for piece in stream._pieces._pieces)


@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize(
    "options",
    [
        GREEDY,
        {"search": {"name": "sample", "temperature": 0.8}, "seed": 3, "max_tokens": 24},
        {"search": {"name": "beam", "num_beams": 3}, "max_tokens": 12},
        {"search": "sample", "n": 3, "seed": 1, "max_tokens": 9},
    ],
    ids=["greedy", "sample", "beam", "n"],
)
def test_several_prompts_are_continued_as_each_is_alone(runner: Runner, options: Any, slots: int) -> None:
    expected = [runner.generate(prompt, **options).completions for prompt in PROMPTS]
    found = [result.completions for result in runner.generate_batch(PROMPTS, slots=slots, **options)]
    assert [[each.tokens for each in one] for one in found] == [[each.tokens for each in one] for one in expected]
    assert [one[0].text for one in found] == [one[0].text for one in expected]


def test_searches_of_every_kind_share_the_steps(runner: Runner) -> None:
    searches: list[Any] = ["greedy", {"name": "beam", "num_beams": 2}, "sample", "greedy"]
    expected = [runner.generate(PROMPTS[0], search=each, seed=2, max_tokens=10).tokens for each in searches]
    with Scheduler(runner) as scheduler:
        streams = [scheduler.submit(PROMPTS[0], search=each, seed=2, max_tokens=10) for each in searches]
        assert [stream.result().tokens for stream in streams] == expected


def test_with_a_seed_neighbours_change_no_bit(pycoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even in a bundle in few bits, whose kernels compute two rows otherwise than one."""
    options: list[Any] = [
        {"search": "sample", "n": 3, "logprobs": 2},
        {"search": {"name": "beam", "num_beams": 3}},
        {"search": "greedy", "logprobs": 2},
    ]
    with Runner.open(pycoder_bundle.path, threads=1) as runner, Scheduler(runner) as scheduler:
        alone = [runner.generate(PROMPTS[1], seed=5, max_tokens=16, **each).completions for each in options]
        others = [scheduler.submit(prompt, max_tokens=30, search="greedy") for prompt in PROMPTS[2:]]
        streams = [scheduler.submit(PROMPTS[1], seed=5, max_tokens=16, **each) for each in options]
        assert [stream.result().completions for stream in streams] == alone
        assert all(other.result().tokens for other in others)


def test_pieces_come_as_steps_are_made(toy_runner: Runner) -> None:
    with Scheduler(toy_runner) as scheduler:
        first, second = (scheduler.submit([1, 2, prompt], max_tokens=5, search="greedy") for prompt in (3, 4))
        assert not scheduler._pools  # nothing is computed before a step
        pieces = [next(first)]
        while scheduler.step():
            pass
        pieces += list(first)
        assert sum(len(piece.tokens) for piece in pieces) == 5
        assert len(second.result().tokens) == 5
        assert not scheduler.step()


def test_generations_that_decode_are_one_run(toy_runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    run = Pool.run

    def counted(self, slots, *rest):  # type: ignore[no-untyped-def]
        rows.append(len(slots))
        run(self, slots, *rest)

    monkeypatch.setattr(Pool, "run", counted)
    with Scheduler(toy_runner, slots=4) as scheduler:
        for prompt in range(4):
            scheduler.submit([1, 2, prompt], max_tokens=20, search="greedy")
        while scheduler.step():
            pass
    assert rows == [1] * 4 + [4] * 19


def test_prompts_that_begin_alike_are_computed_once(runner: Runner) -> None:
    """Also when they come together: each looks for what is known when its turn comes."""
    common = tuple(range(300, 460))
    with Scheduler(runner) as scheduler:
        streams = [scheduler.submit((*common, 4 + n), max_tokens=3, search="greedy") for n in range(3)]
        cached = [stream.result().timings.prompt_tokens_cached for stream in streams]
    assert cached == [0, 128, 128]


def test_a_long_prompt_lets_others_go_on(toy_runner: Runner) -> None:
    """A step computes a token of each that decodes, and no more of prompts than a chunk."""
    with Scheduler(toy_runner, chunk=16) as scheduler:
        running = scheduler.submit([1, 2, 3], max_tokens=60, search="greedy")
        scheduler.step()
        long = scheduler.submit([5] * 160, max_tokens=3, search="greedy")
        for step in range(9):
            scheduler.step()
            assert (waiting(running), waiting(long)) == (step + 2, 0)
        scheduler.step()
        assert waiting(long) == 1
        assert len(running.result().tokens) == 60


def test_a_prompt_waits_until_there_is_room(toy_runner: Runner) -> None:
    with Scheduler(toy_runner, slots=2) as scheduler:
        streams = [scheduler.submit([1, 2, prompt], max_tokens=8, search="greedy") for prompt in range(5)]
        most = 0
        while scheduler.step():
            most = max(most, held(scheduler))
        assert most == 2
        assert len(pool_of(scheduler).slots) == 2
        expected = [toy_runner.generate([1, 2, prompt], max_tokens=8, search="greedy").tokens for prompt in range(5)]
        assert [stream.result().tokens for stream in streams] == expected


def test_one_that_is_closed_gives_its_slot_back_and_keeps_what_it_has(toy_runner: Runner) -> None:
    with Scheduler(toy_runner, slots=2) as scheduler:
        streams = [scheduler.submit([1, 2, prompt], max_tokens=30, search="greedy") for prompt in range(3)]
        expected = [toy_runner.generate([1, 2, prompt], max_tokens=30, search="greedy").tokens for prompt in range(3)]
        for _ in range(6):
            scheduler.step()
        assert held(scheduler) == 2
        streams[0].close()
        assert held(scheduler) == 1
        cancelled = streams[0].result().completions[0]
        assert (cancelled.finish_reason, cancelled.tokens) == ("cancelled", expected[0][: len(cancelled.tokens)])
        assert 4 <= len(cancelled.tokens) <= 6
        assert [stream.result().tokens for stream in streams[1:]] == expected[1:]


def test_one_that_is_closed_before_its_turn_never_begins(toy_runner: Runner) -> None:
    with Scheduler(toy_runner, slots=1) as scheduler:
        first, second = (scheduler.submit([1, prompt], max_tokens=9, search="greedy") for prompt in range(2))
        second.close()
        assert second.result().finish_reason == "cancelled"
        assert len(first.result().tokens) == 9
        assert not scheduler.step()


def test_a_row_without_finite_scores_fails_its_own_generation_alone(toy_runner: Runner) -> None:
    @dataclass(frozen=True)
    class Poisoned(Search):
        name: ClassVar[str] = "poisoned"

        def flow(self, context: Context) -> Flow:
            yield Request(extend=(Extend(0, context.prompt, None),))
            yield Request(emit=(Emit(0, (7,)),), extend=(Extend(0, (7,), 0),))
            yield Request(extend=(Extend(0, (NAN,), 0),))
            raise AssertionError("it has no scores to go on with")

    with Scheduler(toy_runner) as scheduler:
        streams = [
            scheduler.submit([1, 2, 3], max_tokens=20, search=search) for search in ("greedy", Poisoned(), "greedy")
        ]
        expected = toy_runner.generate([1, 2, 3], max_tokens=20, search="greedy").tokens
        assert streams[0].result().tokens == expected
        with pytest.raises(GenerationError, match="after 5 tokens are not finite"):
            streams[1].result()
        assert streams[2].result().tokens == expected
        assert held(scheduler) == 0
        assert streams[1].result().tokens == (7,)


def test_a_search_that_raises_fails_alone(toy_runner: Runner) -> None:
    @dataclass(frozen=True)
    class Broken(Search):
        name: ClassVar[str] = "broken"

        def flow(self, context: Context) -> Flow:
            yield Request(extend=(Extend(0, context.prompt, None), Extend(1, (3, 4), None)))
            raise ZeroDivisionError("a fault of its own")

    with Scheduler(toy_runner) as scheduler:
        broken = scheduler.submit([1, 2], search=Broken())
        sound = scheduler.submit([1, 2], search="greedy", max_tokens=5)
        with pytest.raises(ZeroDivisionError):
            next(broken)
        assert len(sound.result().tokens) == 5
        assert held(scheduler) == 0


def test_what_cannot_be_done_is_refused_where_it_is_submitted(toy_runner: Runner) -> None:
    with Scheduler(toy_runner) as scheduler:
        with pytest.raises(ContextOverflow, match="nothing is left for an answer"):
            scheduler.submit([1] * CONTEXT)
        with pytest.raises(OptionError, match="known"):
            scheduler.submit([1], serach="greedy")  # type: ignore[call-arg]
        assert not scheduler.step()
    with pytest.raises(OptionError, match="slots is 0 and chunk is 128; both must be 1 or more"):
        Scheduler(toy_runner, slots=0)
    with pytest.raises(GenerationError, match="the prompt is empty"):
        toy_runner.generate_batch(["x", ""])


def test_a_longer_generation_makes_all_slots_longer(toy_runner: Runner) -> None:
    with Scheduler(toy_runner) as scheduler:
        short = scheduler.submit([1, 2], max_tokens=30, search="greedy")
        for _ in range(4):
            scheduler.step()
        long = scheduler.submit([4] * 100, max_tokens=100, search="greedy")
        expected = [
            toy_runner.generate([1, 2], max_tokens=30, search="greedy").tokens,
            toy_runner.generate([4] * 100, max_tokens=100, search="greedy").tokens,
        ]
        assert [short.result().tokens, long.result().tokens] == expected
        assert pool_of(scheduler).capacity == 200


def test_a_beam_that_needs_more_rows_than_there_are_slots_gets_them(runner: Runner) -> None:
    beam: Any = {"name": "beam", "num_beams": 5}
    expected = runner.generate(PROMPTS[0], search=beam, max_tokens=8).tokens
    with Scheduler(runner, slots=2) as scheduler:
        streams = [scheduler.submit(PROMPTS[0], search=search, max_tokens=8) for search in (beam, "greedy", beam)]
        assert [streams[0].result().tokens, streams[2].result().tokens] == [expected] * 2


def test_assistants_have_pools_of_their_own(runner: Runner, pycoder_bundle: Bundle) -> None:
    speculative: Any = {"name": "speculative", "search": "greedy", "width": 3}
    with Runner.open(pycoder_bundle.path, threads=1) as small, Scheduler(runner) as scheduler:
        streams = [
            scheduler.submit(prompt, search=speculative, assistants=[small], max_tokens=16) for prompt in PROMPTS[:3]
        ]
        found = [stream.result().tokens for stream in streams]
        assert len(scheduler._pools) == 2
        assert found == [runner.generate(prompt, search="greedy", max_tokens=16).tokens for prompt in PROMPTS[:3]]


def test_closing_a_scheduler_cancels_all(toy_runner: Runner) -> None:
    scheduler = Scheduler(toy_runner, slots=1)
    streams = [scheduler.submit([1, prompt], max_tokens=50, search="greedy") for prompt in range(3)]
    next(streams[0])
    scheduler.close()
    assert [stream.result().finish_reason for stream in streams] == ["cancelled"] * 3
    assert not scheduler._pools
